"""Checkpoints as folders that are whole or absent: written aside, checksummed, made durable, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from pathlib import Path

from coursekit.errors import CoursekitError, InputError, check_whole

MANIFEST = "SHA256SUMS"
"""The file that lists the others with their checksums; `sha256sum --check` reads it too."""

_NAME = re.compile(r"step_(\d{8,})(?:\.(\d+))?")  # the part after the dot: this step was saved before
_LEFTOVERS = (".saving-*", ".deleting-*")


class CheckpointError(CoursekitError):
    """A checkpoint could not be written, or none could be read."""


def list_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """Return the checkpoints in `folder`, the oldest step first, by their names; none if there is no folder.

    >>> list_checkpoints("no/such/folder")
    []
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_step_and_attempt)


def find_damage(path: str | os.PathLike, *, rank: int = 0, world_size: int = 1) -> str | None:
    """Return what is wrong with the checkpoint at `path`, or None if each file is as it was written.

    Finds what disks and interrupted copies do: a truncated, changed, missing or added file. Against someone
    who writes a file and its checksum, only a signature would help.

    Args:
        path: one of `list_checkpoints`.
        rank: which part of the files to read, so that ranks share the work.
        world_size: number of parts.
    """
    path = Path(path)
    try:
        listed = _read_manifest(path / MANIFEST)
        present = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        if strange := sorted(listed.keys() ^ (present - {MANIFEST})):
            return f"{strange[0]} is {'missing' if strange[0] in listed else f'not listed in {MANIFEST}'}"
        for name in sorted(listed)[rank::world_size]:
            if _hash(path / name) != listed[name]:
                return f"{name} differs from its checksum"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def unwritten(folder: str | os.PathLike, cause: object) -> CheckpointError:
    """Return the error for a save that failed, which says what still stands."""
    kept = list_checkpoints(folder)
    stands = f"{kept[-1].name} is still there" if kept else "there is none before it"
    return CheckpointError(f"the checkpoint could not be written to {folder}: {cause}; {stands}")


def open_staging(folder: Path, step: int) -> Path:
    """Return a new, empty folder inside `folder`, hidden from `list_checkpoints`, to write `step` into.

    Removes what killed saves left behind. One run at a time writes to a folder.

    Raises: InputError for a step that is no whole number, if a later one is there already, or the folder is a
        checkpoint itself.
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise InputError("no such step", expected="a whole number >= 0", got=repr(step))
    if folder.is_dir():  # of a file the system says what it is
        check_run_folder(folder)
    if not folder.exists():
        folder.mkdir(parents=True)
        _sync_folder(folder.parent)
    for pattern in _LEFTOVERS:
        for leftover in folder.glob(pattern):
            shutil.rmtree(leftover)
    _refuse_to_go_back(folder, step)
    staging = folder / f".saving-{step}"
    staging.mkdir()
    return staging


def sync_and_hash(path: Path) -> str:
    """Return the SHA-256 of a file once it is on the disk, as far as `fsync` can tell."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(staging: Path, step: int, *, keep_last: int, checksums: dict[str, str]) -> Path:
    """Turn a staging folder into the checkpoint of `step`; delete all but the newest `keep_last`.

    The order is the point. Data reaches the disk before the name does, or a power failure leaves a name
    without data; the new name reaches it before an old checkpoint goes.

    Args:
        staging: from `open_staging`, its files written and passed through `sync_and_hash`.
        step: the same as there.
        keep_last: how many to keep, this one included.
        checksums: SHA-256 by file name.
    """
    manifest = staging / MANIFEST
    manifest.write_text("".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums)))
    sync_and_hash(manifest)
    _sync_folder(staging)
    same_step = [path for path in list_checkpoints(staging.parent) if _step_and_attempt(path)[0] == step]
    # A folder cannot be renamed over another: the step saved again takes a name of its own.
    attempt = f".{_step_and_attempt(same_step[-1])[1] + 1}" if same_step else ""
    path = staging.rename(staging.parent / f"step_{step:08d}{attempt}")
    _sync_folder(path.parent)
    _delete(_outdated(path, same_step, keep_last))
    return path


def check_keep_last(keep_last: int) -> None:
    """Raise InputError unless at least the newest checkpoint is kept."""
    check_whole("a save would delete itself", keep_last=keep_last)


def check_run_folder(folder: str | os.PathLike) -> None:
    """Raise InputError for a file, or a checkpoint itself, in the place of the folder that holds checkpoints.

    Neither has a checkpoint in it: a run would begin anew, or a save spoil the checkpoint it is put into.
    """
    folder = Path(folder)
    if folder.is_file():
        raise InputError("not the folder of a run", expected="a folder", got=f"the file {folder}")
    if (folder / MANIFEST).exists():
        fix = f"give {folder.parent}, of which the newest is taken"
        raise InputError("this is a checkpoint, not the folder of a run", got=folder, fix=fix)


def _outdated(path: Path, same_step: list[Path], keep_last: int) -> list[Path]:
    """Return what the checkpoint at `path` replaces: its own step's older saves, unusable later steps, and
    all before the last `keep_last`.
    """
    others = [other for other in list_checkpoints(path.parent) if other != path and other not in same_step]
    later = [other for other in others if _step_and_attempt(other) > _step_and_attempt(path)]
    earlier = [other for other in others if other not in later]
    return same_step + later + earlier[: max(0, len(earlier) - (keep_last - 1))]


def _delete(paths: list[Path]) -> None:
    for path in paths:
        try:
            # Renamed first: a kill amid the deletion must not leave half a checkpoint under a good name.
            shutil.rmtree(path.rename(path.parent / f".deleting-{path.name}"))
        except OSError as error:
            warnings.warn(f"the old checkpoint {path} could not be deleted: {error}", stacklevel=2)


def _refuse_to_go_back(folder: Path, step: int) -> None:
    """Raise InputError if a whole checkpoint of a later step is there, which the next start would take."""
    for path in list_checkpoints(folder):
        if _step_and_attempt(path)[0] > step and find_damage(path) is None:
            raise InputError(
                "a checkpoint of a later step is in the folder",
                expected=f"a step after {_step_and_attempt(path)[0]}",
                got=step,
                fix=f"resume from it, delete {path}, or save to another folder",
            )


def _step_and_attempt(path: Path) -> tuple[int, int]:
    step, attempt = _NAME.fullmatch(path.name).groups()
    return int(step), int(attempt or 0)


def _read_manifest(path: Path) -> dict[str, str]:
    text = path.read_text()
    lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)\n", line) for line in text.splitlines(keepends=True)]
    if not lines or None in lines:
        raise ValueError(f"{path.name} is {'damaged' if lines else 'empty'}")
    return {line[2]: line[1] for line in lines}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; `fsync` of a file does not include its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
