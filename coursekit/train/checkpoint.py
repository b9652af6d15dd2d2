"""Checkpoints of a run in one process: everything that the next step depends on, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from coursekit.errors import InputError

from .checkpoint_files import (
    CheckpointError,
    check_keep_last,
    check_run_folder,
    commit,
    find_damage,
    list_checkpoints,
    open_staging,
    sync_and_hash,
    unwritten,
)
from .checkpoint_state import Stateful, check_plain, get_states, pack_rng_state, set_states, unpack_rng_state

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Args:
        step: the last step that was saved, 0 if none was.
        path: the checkpoint it was read from, None if there was none.
        extra: what was given to the save as `extra`.
    """

    step: int = 0
    path: Path | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def save_checkpoint_naive(path: str | os.PathLike, step: int, **parts: Stateful) -> None:
    """Overwrite the file at `path` with the step and the `state_dict()` of each part.

    The version to read. A kill while it writes leaves neither the old checkpoint nor the new one, a full disk
    the same, and the random states are forgotten.
    """
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, path)


def load_checkpoint_naive(path: str | os.PathLike, **parts: Stateful) -> int:
    """Give each part its state back from the file at `path`; return the step, 0 if there is no file."""
    if not Path(path).exists():
        return 0
    states = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return states["step"]


def save_checkpoint(
    folder: str | os.PathLike,
    step: int,
    *,
    keep_last: int = 3,
    extra: dict[str, Any] | None = None,
    **parts: Stateful | None,
) -> Path:
    """Write the checkpoint of `step` into `folder` and return its path; older ones go, but for `keep_last`.

    Holds each part's `state_dict()`, the random states of Python, NumPy and torch, and `extra`. When it
    returns, the checkpoint is on the disk; until then, the one before it is untouched: a killed process, a
    full disk or a power failure costs the steps since the last save and no more. A run that resumes with
    `load_latest` ends with the same weights, bit for bit, as one that was never interrupted, if its
    operations are deterministic and `data` says which samples come next.

    Args:
        folder: of this run alone; made if need be. Each checkpoint is a folder in it, `step_00000012`.
        step: optimizer steps done.
        keep_last: how many checkpoints to keep, at least 1. One that is damaged counts too.
        extra: further plain values, such as the best loss so far; `load_latest` returns them.
        parts: whatever has `state_dict` and `load_state_dict`, each by a name: `model=`, `optimizer=`,
            `schedule=`, `scaler=`, `data=` (see `ResumableSampler`). None stands for a part not in use.

    Raises:
        InputError: for a step before one that is saved already, a part without a state or with one that
            would not load, or several ranks (see `save_sharded`).
        CheckpointError: the disk is full, or else refused the files; what was written is removed.
    Source: Pillai et al. 2014, OSDI, "All file systems are not created equal", on what a rename needs to be
        atomic after a crash, https://www.usenix.org/conference/osdi14/technical-sessions/presentation/pillai
    """
    _refuse_ranks()
    check_keep_last(keep_last)
    state = {"step": step, "extra": extra or {}, "parts": get_states(parts), "rng": pack_rng_state()}
    check_plain(state["extra"], "extra")
    with _saying_what_failed(folder), _removed_on_error(open_staging(Path(folder), step)) as staging:
        with (staging / STATE_FILE).open("wb") as file:
            torch.save(state, file)
        checksums = {STATE_FILE: sync_and_hash(staging / STATE_FILE)}
        return commit(staging, step, keep_last=keep_last, checksums=checksums)


def load_latest(folder: str | os.PathLike, **parts: Stateful | None) -> ResumePoint:
    """Give each part and all random generators the state of the newest whole checkpoint in `folder`.

    A damaged checkpoint is named in a warning, and the one before it used. If the folder has none, nothing
    is changed and the returned step is 0: the same line starts a run and resumes it. Whatever draws random
    numbers in between (`iter` of a DataLoader does) belongs before this line; `ResumableSampler.consume`
    sees to it by itself.

    Args:
        folder: where `save_checkpoint` writes.
        parts: the same names as there, on any device.

    Returns: the step to go on from, and the `extra` that was saved.

    Raises:
        InputError: the parts are not those that were saved, or `folder` is a file, or itself a checkpoint.
        RuntimeError: torch's own, if a part is of the same name but of other shapes.
        CheckpointError: there are checkpoints, and each is damaged; it lists what is wrong with each.
    """
    check_run_folder(folder)
    tried = []
    for path in reversed(list_checkpoints(folder)):
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            tried.append(str(error))
            warnings.warn(f"{error}; trying the one before it", stacklevel=2)
            continue
        set_states(parts, state["parts"])
        unpack_rng_state(state["rng"])
        return ResumePoint(state["step"], path, state["extra"])
    if tried:
        raise CheckpointError("no checkpoint can be used:\n" + "\n".join(tried))
    return ResumePoint()


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Return what the checkpoint at `path` holds, on the CPU: `step`, `extra`, `rng`, and `parts` by name.

    `model.load_state_dict(read_checkpoint(path)["parts"]["model"])` takes the weights alone. The files are
    checked first, and read with `weights_only=True`: no code in them is run.

    Raises: CheckpointError if a file is damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if (path / ".metadata").exists():
        raise InputError("a sharded checkpoint", got=path, fix="use load_sharded; one process can, too")
    if (damage := find_damage(path)) is not None:
        raise CheckpointError(f"{path} is damaged: {damage}")
    try:
        return torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickling meets
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _removed_on_error(staging: Path) -> Iterator[Path]:
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # what cannot go now goes with the next save
        raise


@contextlib.contextmanager
def _saying_what_failed(folder: str | os.PathLike) -> Iterator[None]:
    """Turn the operating system's errors, also those that torch hides behind its own, into one that says
    what still stands.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save meets a full disk as a RuntimeError about file positions; the cause is its context.
        cause = error if isinstance(error, OSError) else error.__context__
        raise unwritten(folder, cause or error) from error


def _refuse_ranks() -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise InputError(
            "save_checkpoint is for one process",
            expected="no process group of several ranks",
            got=f"{dist.get_world_size()} ranks",
            fix="use save_sharded, which keeps each rank's random state too",
        )
