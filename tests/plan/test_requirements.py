"""Verdicts on machines of other people, from their facts."""

import dataclasses

import pytest

from coursekit.plan import Gpu, TorchBuild, check_machine
from coursekit.units import GB, GiB
from tests.plan.machines import (
    CONTAINER,
    CUDA_12_6,
    CUDA_13,
    DESKTOP,
    GTX_1050_TI,
    INTEL_MAC,
    MACBOOK,
    OLD_CARD,
    WINDOWS,
    changed,
)


def check(machine, topic):
    """Return the machine's row for a topic."""
    (row,) = [row for row in check_machine(machine) if row.topic == topic]
    return row


def verdicts(machine):
    """Return the topics that are not ok, with their verdicts."""
    return {row.topic: row.verdict for row in check_machine(machine) if row.verdict != "ok"}


def test_a_good_desktop_has_nothing_to_mend():
    assert verdicts(DESKTOP) == {}
    assert all(row.mend == "" for row in check_machine(DESKTOP))


def test_a_container_is_judged_by_its_limits_not_by_its_host():
    assert verdicts(CONTAINER) == {"processors": "enough", "memory": "short", "GPU": "enough"}
    assert check(CONTAINER, "memory").found == "4.3 GB of 275 GB, 3.2 GB free"
    assert "docker run --cpus=64" in check(CONTAINER, "processors").mend
    unlimited = dataclasses.replace(CONTAINER, usable_processors=64, usable_memory_bytes=256 * GiB)
    assert "memory" not in verdicts(unlimited)


def test_a_machine_sold_with_8_gb_has_8_gb():
    # 8 GiB of chips, of which firmware and kernel keep some.
    sold = int(7.6 * GiB)
    row = check(changed(memory_bytes=sold, usable_memory_bytes=sold), "memory")
    assert row.verdict == "enough"
    assert check(changed(memory_bytes=6 * GiB, usable_memory_bytes=6 * GiB), "memory").verdict == "short"


def test_the_documents_card_needs_another_build_of_torch():
    assert "TORCH=cu126" in check(OLD_CARD, "GPU").mend
    assert "no kernels for capability 6.1" in check(OLD_CARD, "CUDA").mend
    mended = changed(gpus=GTX_1050_TI, torch=TorchBuild("2.13.0+cu126", "12.6", CUDA_12_6, "cuda"))
    assert check(mended, "CUDA").verdict == "ok"


@pytest.mark.parametrize(
    ("torch", "driver", "said"),
    [
        (TorchBuild("2.13.0+cpu"), "580.65.06", "the GPU lies idle"),
        (None, "580.65.06", "the GPU lies idle"),
        (TorchBuild("2.13.0+cu130", "13.0", CUDA_13, "cpu"), "550.54.15", "driver 580 or newer"),
        (TorchBuild("2.13.0+cu126", "12.6", CUDA_12_6, "cpu"), "470.10", "driver 525 or newer"),
        (TorchBuild("2.13.0+cu130", "13.0", CUDA_13, "cpu"), "580.65.06", "--gpus all"),
    ],
)
def test_what_keeps_torch_from_the_gpu_is_named(torch, driver, said):
    card = dataclasses.replace(DESKTOP.gpus[0], driver=driver)
    row = check(changed(gpus=(card,), torch=torch), "CUDA")
    assert row.verdict == "enough"
    assert said in row.mend


def test_the_newest_of_two_cards_is_judged():
    both = (*GTX_1050_TI, *DESKTOP.gpus)
    assert check(changed(gpus=both), "GPU").found.startswith("2 x NVIDIA GeForce RTX 4070")
    assert check(changed(gpus=both), "CUDA").verdict == "ok"


def test_a_card_with_too_little_memory_or_too_old_for_any_build():
    small = Gpu("NVIDIA T400", 2048 * 2**20, (7, 5), "580.1")
    assert "small" in check(changed(gpus=(small,)), "GPU").mend
    kepler = Gpu("Tesla K80", 11441 * 2**20, (3, 7), "470.1")
    assert "too old for any" in check(changed(gpus=(kepler,)), "GPU").mend


def test_systems():
    assert verdicts(MACBOOK) == {"TensorFlow": "enough"}
    assert check(MACBOOK, "GPU").found == "Apple silicon (MPS)"
    assert verdicts(INTEL_MAC)["system"] == "short"
    assert "WSL 2" in check(WINDOWS, "system").mend
    assert check(changed(architecture="riscv64"), "system").verdict == "short"


@pytest.mark.parametrize(
    ("version", "verdict"), [("3.10.9", "short"), ("3.11.0", "ok"), ("3.13.1", "ok"), ("3.14.0rc1", "short")]
)
def test_pythons(version, verdict):
    assert check(changed(python=version), "Python").verdict == verdict


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("2.8.0", "short"),
        ("2.9.1+cu130", "enough"),
        ("2.13.0", "ok"),
        ("2.14.0a0+git1", "ok"),
        ("3.0.0", "ok"),
    ],
)
def test_torches(version, verdict):
    assert check(changed(torch=TorchBuild(version)), "torch").verdict == verdict


def test_without_torch_more_disk_is_asked_for():
    assert check(changed(free_disk_bytes=5 * GB), "disk").verdict == "enough"
    assert check(changed(free_disk_bytes=5 * GB, torch=None), "disk").verdict == "short"
    assert "SSD" in check(changed(spinning_disk=True), "disk").mend


@pytest.mark.parametrize(
    "machine", [DESKTOP, CONTAINER, OLD_CARD, MACBOOK, INTEL_MAC, WINDOWS, changed(torch=None)]
)
def test_every_row_that_is_short_says_what_to_do(machine):
    rows = check_machine(machine)
    assert len({row.topic for row in rows}) == len(rows) == 9
    assert all(row.mend for row in rows if row.verdict == "short")
    assert {row.verdict for row in rows} <= {"ok", "enough", "short"}
