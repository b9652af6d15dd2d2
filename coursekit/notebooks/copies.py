"""A learner's own copies of the exercises, which nothing ever overwrites."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from coursekit.errors import InputError

RECORD = ".coursekit-copies.json"


@dataclass(frozen=True)
class Copy:
    """What was done for one exercise; status is "new", "kept", "followed" or "offered"."""

    slug: str
    path: Path
    status: str

    def __str__(self) -> str:
        return {
            "new": f"{self.path}: copied",
            "kept": f"{self.path}: yours, kept",
            "followed": f"{self.path}: had no work of yours; replaced by the new version",
            "offered": f"{self.path}: a new version, beside your work; move your answers over",
        }[self.status]


def copy_exercises(exercises: Path | str, work: Path | str, *, slugs: list[str] | None = None) -> list[Copy]:
    """Copy `exercises/<slug>/<slug>.ipynb` into `work/<slug>/` where no copy is, and return what was
    done for each.

    A copy that a learner may have worked on stays as it is. If the released notebook changed since it was
    copied, the new one is placed beside it as `<slug>.updated.ipynb`, once for each new version.
    Deleting a copy and calling again gives a fresh one. What was copied is recorded by hash in
    `work/.coursekit-copies.json`.

    Raises: InputError if there are no exercises, a named one is not there, or the record cannot be read.
    """
    exercises, work = Path(exercises), Path(work)
    found = {path.stem: path for path in sorted(exercises.glob("*/*.ipynb")) if path.stem == path.parent.name}
    if not found:
        raise InputError("no exercises to copy", expected=f"{exercises}/<slug>/<slug>.ipynb", got="none")
    for slug in slugs or []:
        if slug not in found:
            raise InputError(
                f"no exercise {slug!r}", expected=f"one of {sorted(found)}", got=exercises / slug
            )
    work.mkdir(parents=True, exist_ok=True)
    record = _read_record(work / RECORD)
    copies = [_copy(found[slug], work / slug, record) for slug in slugs or found]
    (work / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return copies


def _copy(released: Path, folder: Path, record: dict[str, str]) -> Copy:
    slug = released.stem
    own, new, known = folder / f"{slug}.ipynb", _hash(released), record.get(slug)
    record[slug] = new
    if not own.exists():
        _place(released, own)
        return Copy(slug, own, "new")
    if _hash(own) == new or known == new:
        return Copy(slug, own, "kept")
    if _hash(own) == known:
        # Still the bytes that were copied: there is no work in it to keep.
        _place(released, own)
        return Copy(slug, own, "followed")
    beside = _free_name(folder, slug, known)
    _place(released, beside)
    return Copy(slug, beside, "offered")


def _free_name(folder: Path, slug: str, known: str | None) -> Path:
    """Return where a new version may go: a learner may have worked in an earlier offer as well."""
    number = 1
    while True:
        path = folder / f"{slug}.updated{f'-{number}' if number > 1 else ''}.ipynb"
        if not path.exists() or _hash(path) == known:
            return path
        number += 1


def _place(released: Path, target: Path) -> None:
    """Copy by way of a neighbour, so that an interrupted run leaves no half notebook."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    shutil.copyfile(released, part)
    part.replace(target)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_record(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({error})", fix="delete it; your notebooks are not touched"
        ) from error
    return record
