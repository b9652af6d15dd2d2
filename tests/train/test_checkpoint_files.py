"""A checkpoint is whole or passed over, by name; a new one is durable before an old one goes."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess

import pytest
import torch

from coursekit.errors import InputError
from coursekit.train import (
    CheckpointError,
    find_damage,
    list_checkpoints,
    load_latest,
    preserve_rng,
    read_checkpoint,
    save_checkpoint,
)


@pytest.fixture(autouse=True)
def _leave_global_randomness_alone():
    with preserve_rng():
        yield


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated": (lambda path: os.truncate(path / "state.pt", 500), "state.pt differs from its checksum"),
    "one bit changed": (lambda path: flip_a_byte(path / "state.pt"), "state.pt differs from its checksum"),
    "empty": (lambda path: os.truncate(path / "state.pt", 0), "state.pt differs from its checksum"),
    "missing": (lambda path: (path / "state.pt").unlink(), "state.pt is missing"),
    "no manifest": (lambda path: (path / "SHA256SUMS").unlink(), "FileNotFoundError"),
    "empty manifest": (lambda path: os.truncate(path / "SHA256SUMS", 0), "SHA256SUMS is empty"),
    "truncated manifest": (lambda path: os.truncate(path / "SHA256SUMS", 40), "SHA256SUMS is damaged"),
    "changed manifest": (lambda path: flip_a_byte(path / "SHA256SUMS"), "SHA256SUMS|checksum"),
    "a stranger": (lambda path: (path / "x").touch(), "x is not listed in SHA256SUMS"),
    "empty folder": (lambda path: [file.unlink() for file in path.iterdir()], "FileNotFoundError"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, damage):
    inflict, words = DAMAGES[damage]
    save_checkpoint(tmp_path, 1, extra={"ones": torch.ones(100)})
    path = save_checkpoint(tmp_path, 2, extra={"ones": torch.ones(100)})
    assert find_damage(path) is None
    inflict(path)
    assert re.search(words, find_damage(path))
    with pytest.warns(UserWarning, match=f"step_00000002 is damaged: .*({words}).*trying the one before it"):
        assert load_latest(tmp_path).step == 1
    with pytest.raises(CheckpointError, match="step_00000002 is damaged"):
        read_checkpoint(path)


def test_a_changed_bit_that_torch_does_not_see_is_found(tmp_path):
    """The control: without the checksum, weights with another bit load and nobody is told."""
    path = save_checkpoint(tmp_path, 1, extra={"ones": torch.ones(1000)}) / "state.pt"
    data = bytearray(path.read_bytes())
    at = data.index(torch.ones(8).numpy().tobytes())
    data[at + 3] ^= 1
    path.write_bytes(data)
    assert not torch.load(path, weights_only=True)["extra"]["ones"].eq(1).all()
    assert find_damage(path.parent) == "state.pt differs from its checksum"


def test_if_none_is_whole_the_error_lists_what_was_tried(tmp_path):
    for step in (1, 2):
        os.truncate(save_checkpoint(tmp_path, step) / "state.pt", 9)
    with pytest.raises(CheckpointError) as error, pytest.warns(UserWarning, match="trying the one before it"):
        load_latest(tmp_path)
    assert re.search(
        r"(?s)no checkpoint can be used:.*step_00000002 is dam.*step_00000001 is dam", str(error.value)
    )


def test_ranks_that_share_the_check_find_a_damage_between_them(tmp_path):
    path = save_checkpoint(tmp_path, 1)
    for extra in "abc":
        (path / extra).write_text(extra)
    checksums = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names(path)[1:]}
    (path / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in checksums.items()))
    (path / "b").write_text("x")
    found = [find_damage(path, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(map(str, found)) == ["None", "None", "b differs from its checksum"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_manifest_is_what_sha256sum_checks(tmp_path):
    path = save_checkpoint(tmp_path, 1)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "state.pt: OK\n")


def test_the_last_k_are_kept(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, keep_last=2)
    assert names(tmp_path) == ["step_00000003", "step_00000004"]
    with pytest.raises(
        InputError, match="a save would delete itself: expected a whole keep_last >= 1, got 0"
    ):
        save_checkpoint(tmp_path, 5, keep_last=0)


def test_steps_are_ordered_as_numbers_and_strangers_left_alone(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "step_best").mkdir()
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_99999999", "step_100000000"]
    assert {"notes.txt", "step_best"} <= set(names(tmp_path))


def test_a_step_saved_again_replaces_the_first(tmp_path):
    save_checkpoint(tmp_path, 0)
    for try_number in range(3):
        save_checkpoint(tmp_path, 1, extra={"try_number": try_number})
    assert names(tmp_path) == ["step_00000000", "step_00000001.2"]
    assert load_latest(tmp_path).extra == {"try_number": 2}


def test_a_step_before_a_whole_checkpoint_is_refused_since_the_next_start_would_pass_it_over(tmp_path):
    save_checkpoint(tmp_path, 7)
    with pytest.raises(
        InputError, match=r"later step .* expected a step after 7, got 1; resume from it, delete"
    ):
        save_checkpoint(tmp_path, 1)
    assert names(tmp_path) == ["step_00000007"]


def test_a_damaged_later_step_neither_stops_a_run_nor_costs_it_a_good_checkpoint(tmp_path):
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step)
    os.truncate(path / "state.pt", 9)
    with pytest.warns(UserWarning, match="step_00000002 is damaged"):
        assert load_latest(tmp_path).step == 1
    os.rename(path, tmp_path / "step_00000009")
    save_checkpoint(tmp_path, 2, keep_last=1)
    assert names(tmp_path) == ["step_00000002"]
    assert load_latest(tmp_path).step == 2


def test_what_killed_saves_leave_behind_is_not_loaded_and_goes_with_the_next_save(tmp_path):
    save_checkpoint(tmp_path, 1).rename(tmp_path / ".deleting-step_00000001")
    save_checkpoint(tmp_path, 2).rename(tmp_path / ".saving-2")
    assert load_latest(tmp_path).step == 0
    save_checkpoint(tmp_path, 2)
    assert names(tmp_path) == ["step_00000002"]


@contextlib.contextmanager
def recorded_calls(monkeypatch):
    """Record, in order, what a save asks of the operating system; each call is made."""
    calls = []

    def record(name):
        real = getattr(os, name)

        def call(target, *args, **kwargs):
            path = os.readlink(f"/proc/self/fd/{target}") if name == "fsync" else str(target)
            calls.append((name, os.path.basename(path)))
            return real(target, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "rmdir"):
            patch.setattr(os, name, record(name))
        yield calls


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads names from Linux's /proc")
def test_data_is_durable_before_its_name_and_its_name_before_an_old_one_goes(tmp_path, monkeypatch):
    """A power failure cannot be had in a test; what survives it is settled by this order."""
    save_checkpoint(tmp_path, 1)
    with recorded_calls(monkeypatch) as calls:
        save_checkpoint(tmp_path, 2, keep_last=1)
    assert calls == [
        ("fsync", "state.pt"),
        ("fsync", "SHA256SUMS"),
        ("fsync", ".saving-2"),
        ("rename", ".saving-2"),
        ("fsync", tmp_path.name),
        ("rename", "step_00000001"),
        ("rmdir", ".deleting-step_00000001"),
    ]


def test_an_old_checkpoint_that_cannot_be_deleted_is_said_and_costs_nothing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1)
    with monkeypatch.context() as patch:

        def refuse(path, **options):
            raise PermissionError(f"not yours: {path}")

        patch.setattr(os, "rmdir", refuse)
        with pytest.warns(
            UserWarning, match="old checkpoint .*step_00000001 could not be deleted: not yours"
        ):
            save_checkpoint(tmp_path, 2, keep_last=1)
    assert load_latest(tmp_path).step == 2
    save_checkpoint(tmp_path, 3, keep_last=1)
    assert names(tmp_path) == ["step_00000003"]


def test_an_interrupt_amid_a_save_leaves_no_trace(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1)
    with monkeypatch.context() as patch:

        def interrupt(descriptor):
            raise KeyboardInterrupt

        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 2)
    assert names(tmp_path) == ["step_00000001"]


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"could not be written to .*there is none before it"):
        save_checkpoint(tmp_path / "file", 1)
