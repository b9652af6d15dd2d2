"""Intake: reads a submission without trusting it, and either accepts it or says why not."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coursekit.errors import CoursekitError
from coursekit.grading.course import Course

MAX_BYTES = 64 * 2**20
# Of lists and objects: three bytes of JSON can be sixty of memory. Outputs, which are texts, have few.
MAX_BRACKETS = 2_000_000
# Nobody writes an answer this long; the pages made of it take far more time than its cell.
MAX_ANSWER_CHARACTERS = 100_000


class RejectedError(CoursekitError):
    """A submission that cannot be graded; the message is the reason, for student and instructor."""


@dataclass(frozen=True)
class Submission:
    """The bytes of one submitted notebook and what lies beside it."""

    student: str
    data: bytes
    timestamp: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of all that a grade depends on from the student's side."""
        return hashlib.sha256(self.data + (self.timestamp or "").encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """The text of one cell of the student's; its grade_id, None for code without one."""

    source: str
    cell_type: str
    grade_id: str | None = None


@dataclass(frozen=True)
class Answers:
    """What a submitted notebook holds: cells by grade_id in its order.

    order: all of these and code cells without a grade_id; graded: those that carry points; slug: the exercise
    that it says it is of.
    """

    by_id: dict[str, list[Answer]] = field(default_factory=dict)
    order: tuple[Answer, ...] = ()
    graded: frozenset[str] = frozenset()
    slug: str | None = None


def read_submission(course: Course, assignment: str, *, student: str) -> Submission:
    """Return what `student` handed in for `assignment`, links not followed.

    Raises: RejectedError if there is no regular notebook file of bearable size, or the folder's name is one
        that nbgrader does not find again.
    """
    if not can_be_found(student):
        raise RejectedError("the folder in submitted/ has a name that no id can have: rename it to the id")
    try:
        return _read_folder(course.submitted(student, assignment), student, assignment)
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise RejectedError(f"the submission cannot be read: {error.strerror}") from error


def can_be_found(student: str) -> bool:
    """Return whether nbgrader finds what lies under a student's name: it strips it, and takes it for a glob.

    >>> can_be_found("Ada Lovelace"), can_be_found(" ada"), can_be_found("a*"), can_be_found("a[1]")
    (True, False, False, False)
    """
    return student == student.strip() and student.isprintable() and not set(student) & set("*?[]")


def _read_folder(folder: Path, student: str, assignment: str) -> Submission:
    for part in (folder.parent, folder):
        if part.is_symlink():
            raise RejectedError(f"{part.name} is a link, and links are not followed")
    if not folder.is_dir():
        raise RejectedError(f"missing: there is no folder submitted/{student}/{assignment}")
    path, flags = _find_notebook(folder, assignment)
    others = [p.name for p in folder.iterdir() if p != path and p.name != "timestamp.txt"]
    flags += [f"extra_files:{len(others)}"] if others else []
    return Submission(student, _read_regular(path), _timestamp(folder), tuple(flags))


def fingerprint(course: Course, assignment: str, *, student: str) -> str:
    """Return a hash of what a student handed in; of the reason, where it cannot be read."""
    try:
        return read_submission(course, assignment, student=student).sha256
    except RejectedError as error:
        return hashlib.sha256(f"rejected: {error}".encode()).hexdigest()


def parse_answers(data: bytes) -> Answers:
    """Return the cells of a submitted notebook that carry a grade_id, and its other code cells.

    Raises: RejectedError if the bytes are empty, no JSON, or no notebook. Never anything else.
    """
    by_id: dict[str, list[Answer]] = {}
    order, graded, notebook = [], set(), _load(data)
    for cell in _cells(notebook):
        grade_id, kind = _grade_id(cell), cell.get("cell_type")
        if grade_id is not None or kind == "code":
            answer = Answer(_text(cell.get("source", cell.get("input"))), str(kind), grade_id)
            order.append(answer)
        if grade_id is not None:
            by_id.setdefault(grade_id, []).append(answer)
            graded.update([grade_id] if cell["metadata"]["nbgrader"].get("grade") is True else [])
    return Answers(by_id, tuple(order), frozenset(graded), slug_of(notebook))


def slug_in(data: bytes) -> str | None:
    """Return the exercise that a notebook's bytes say it belongs to; None also where they are no notebook."""
    try:
        return slug_of(_load(data))
    except RejectedError:
        return None


def slug_of(notebook: dict[str, Any]) -> str | None:
    """Return the exercise that a notebook says it belongs to, or None."""
    metadata = notebook.get("metadata")
    words = metadata.get("coursekit") if isinstance(metadata, dict) else None
    slug = words.get("slug") if isinstance(words, dict) else None
    return slug if isinstance(slug, str) else None


def reject_other_exercise(answers: Answers, *, slug: str | None, known: Collection[str]) -> None:
    """Do nothing if a notebook belongs to the exercise `slug` with the grade_ids `known`.

    Exercises share names such as `setup`, so a few known cells are no proof.
    Raises: RejectedError if it says that it is another's, has none of the cells, or if it does not say and
        most of its cells with points are another's.
    """
    if slug and answers.slug and answers.slug != slug:
        raise RejectedError(f"wrong notebook: this is the notebook of {shown_name(answers.slug[:100])}")
    if not set(answers.by_id) & set(known):
        raise RejectedError("wrong notebook: it has none of this assignment's cells")
    foreign = answers.graded - set(known)
    # A notebook of an earlier state of the same exercise may have other tests; its slug vouches for it.
    if (slug is None or answers.slug != slug) and 2 * len(foreign) > len(answers.graded):
        raise RejectedError("wrong notebook: most of its cells with points are another exercise's")


def _find_notebook(folder: Path, assignment: str) -> tuple[Path, list[str]]:
    wanted = folder / f"{assignment}.ipynb"
    if wanted.is_symlink() or wanted.exists():
        return wanted, []
    others = sorted(p for p in folder.iterdir() if p.suffix == ".ipynb")
    # A browser renames a second download to "name (1).ipynb"; a single notebook leaves no doubt.
    if len(others) == 1:
        return others[0], [f"renamed_file:{shown_name(others[0].name)}"]
    found = ", ".join(shown_name(p.name) for p in others)[:200] or "no notebook"
    raise RejectedError(f"missing: expected {assignment}.ipynb, found {found}")


def shown_name(name: str) -> str:
    r"""Return a name that any page, file and terminal can show: a file's may hold bytes that are no text.

    >>> shown_name("a\udcff\x1b[2J.ipynb")
    'a??[2J.ipynb'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _read_regular(path: Path) -> bytes:
    # O_NONBLOCK: opening a FIFO would wait for ever; O_NOFOLLOW: a link may point at another's work.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        reason = "a link" if path.is_symlink() else error.strerror
        raise RejectedError(f"{path.name} cannot be read: {reason}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RejectedError(f"{path.name} is not a regular file")
        if status.st_size > MAX_BYTES:
            sizes = f"{status.st_size // 2**20} MiB, more than {MAX_BYTES // 2**20}"
            raise RejectedError(f"{path.name} has {sizes}: clear its outputs")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def _timestamp(folder: Path) -> str | None:
    try:
        return _read_regular(folder / "timestamp.txt")[:100].decode().strip() or None
    except (RejectedError, UnicodeDecodeError):
        return None


def _load(data: bytes) -> dict[str, Any]:
    if not data.strip():
        raise RejectedError("not a notebook: the file is empty")
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise RejectedError("not a notebook that can be read: too many lists and objects; clear its outputs")
    try:
        notebook = json.loads(data)
    except RecursionError:
        raise RejectedError("not a notebook: nested too deeply") from None
    except ValueError as error:  # JSON and Unicode errors, and integers too long to convert
        raise RejectedError(f"not a notebook: not valid JSON ({str(error)[:100]})") from None
    if not isinstance(notebook, dict):
        raise RejectedError("not a notebook: JSON, but no object with cells")
    return notebook


def _cells(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # Format 3 keeps its cells in worksheets, and calls the source of code `input`.
    worksheets = notebook.get("worksheets")
    sheets = worksheets if isinstance(worksheets, list) else [notebook]
    lists = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
    if not any(isinstance(cells, list) for cells in lists):
        raise RejectedError("not a notebook: JSON without a list of cells")
    for cells in lists:
        yield from (cell for cell in (cells if isinstance(cells, list) else []) if isinstance(cell, dict))


def _grade_id(cell: dict[str, Any]) -> str | None:
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return grade_id if isinstance(grade_id, str) else None


def _text(source: object) -> str:
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    text = source if isinstance(source, str) else ""
    # A lone surrogate is valid JSON, and no kernel message or file can carry it.
    return text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
