"""Collecting: an LMS's zip of submissions, read entry by entry into submitted/.

Nothing is unpacked: an entry that is accepted is read into memory, bounded, and written under our own name.
nbgrader's own zip_collect unpacks first: a hostile archive is then on the disk before anybody looks at it.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.intake import MAX_BYTES
from coursekit.grading.roster import Student, read_students, valid_id

MAX_ENTRIES = 100_000
# lastfirst_[LATE_]USER_ATTEMPT_name.ipynb
_CANVAS = re.compile(r"(?P<name>[^_/]+)_(?P<late>LATE_)?(?P<user>\d+)_(?P<attempt>\d+)_(?P<file>.+)")
# Full Name_ID_assignsubmission_file_/name.ipynb, or without the folder
_MOODLE = re.compile(r"(?P<name>[^_/]+)_(?P<user>\d+)_assignsubmission_file_/?(?P<file>.+)")


@dataclass(frozen=True)
class Entry:
    """What became of one entry of the archive: "collected", "updated", "unchanged" or "refused"."""

    name: str
    student: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class _Candidate:
    info: zipfile.ZipInfo
    student: str
    file: str
    attempt: int
    note: str = ""


def collect(course: Course, assignment: str, *, archive: Path) -> list[Entry]:
    """Put the newest notebook of each student into submitted/ and say what became of each entry.

    Canvas, Moodle and plain <student>/<assignment>.ipynb names are understood; names are looked up in the
    roster.
    Raises: InputError if the assignment or the archive is not there, or the archive is no zip file.
    """
    course.require(assignment)
    students = read_students(course)
    try:
        opened = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive} cannot be read as a zip file", got=str(error)) from error
    with opened:
        infos = [info for info in opened.infolist() if not _is_noise(info)]
        if len(infos) > MAX_ENTRIES:
            raise InputError(
                "too many entries in the archive", expected=f"at most {MAX_ENTRIES}", got=len(infos)
            )
        sorted_out = [_sort_out(info, assignment, students) for info in infos]
        entries = [item for item in sorted_out if isinstance(item, Entry)]
        chosen, older = _choose([item for item in sorted_out if isinstance(item, _Candidate)], assignment)
        entries += [Entry(c.info.filename, c.student, "refused", "an older or another file") for c in older]
        entries += [_store(course, assignment, opened, candidate) for candidate in chosen]
    return sorted(entries, key=lambda entry: (entry.outcome == "refused", entry.student, entry.name))


def _is_noise(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename).parts
    return info.is_dir() or "__MACOSX" in parts or (bool(parts) and parts[-1] in (".DS_Store", "Thumbs.db"))


def _sort_out(info: zipfile.ZipInfo, assignment: str, students: Sequence[Student]) -> Entry | _Candidate:
    name = info.filename.replace("\\", "/")
    if reason := _refusal(info, name):
        return Entry(info.filename, "", "refused", reason)
    candidate = _whose(info, name, assignment, students)
    if candidate is None or not candidate.student:
        return Entry(info.filename, "", "refused", "no student can be told from this name")
    if not valid_id(candidate.student):
        return Entry(info.filename, candidate.student, "refused", "this student's name cannot be a folder's")
    return candidate


def _refusal(info: zipfile.ZipInfo, name: str) -> str:
    mode = info.external_attr >> 16
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/") or "\0" in name:
        return "its path leads out of the folder"
    if stat.S_ISLNK(mode) or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        return "a link or a special file"
    if info.flag_bits & 1:
        return "encrypted"
    if not name.lower().endswith(".ipynb"):
        return "not a notebook (.ipynb)"
    if info.file_size > MAX_BYTES:
        return f"larger than {MAX_BYTES // 2**20} MiB"
    return ""


def _whose(
    info: zipfile.ZipInfo, name: str, assignment: str, students: Sequence[Student]
) -> _Candidate | None:
    path = PurePosixPath(name)
    canvas = _CANVAS.fullmatch(path.name)
    moodle = _MOODLE.fullmatch("/".join(path.parts[-2:])) or _MOODLE.fullmatch(path.name)
    if match := moodle or canvas:
        found, note = _in_roster(match["user"], match["name"], students)
        late = "late" if canvas and canvas["late"] and not moodle else ""
        attempt = int(canvas["attempt"]) if canvas and not moodle else 0
        return _Candidate(info, found, match["file"], attempt, "; ".join(filter(None, (late, note))))
    folders = [part for part in path.parts[:-1] if part != assignment]
    student = folders[-1] if folders else path.stem if path.stem in {s.id for s in students} else ""
    return _Candidate(info, student, path.name, 0) if student else None


def _in_roster(user: str, name: str, students: Sequence[Student]) -> tuple[str, str]:
    """Return the roster's id for an LMS's number and name, or the number, and a note why."""
    if any(student.id == user for student in students):
        return user, ""
    by_name = [student.id for student in students if _folded(name) in _spellings(student)]
    if len(by_name) == 1:
        return by_name[0], ""
    return user, "more than one student has this name" if by_name else "not in the roster"


def _spellings(student: Student) -> set[str]:
    first, last = _folded(student.first_name), _folded(student.last_name)
    return {first + last, last + first} - {""}


def _folded(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _choose(candidates: Sequence[_Candidate], assignment: str) -> tuple[list[_Candidate], list[_Candidate]]:
    """Return one candidate a student, and the others: the assignment's own name first, then the newest."""

    def rank(candidate: _Candidate) -> tuple:
        return candidate.file.startswith(assignment), candidate.attempt, candidate.info.date_time

    by_student: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        by_student.setdefault(candidate.student, []).append(candidate)
    ordered = [sorted(group, key=rank) for group in by_student.values()]
    return [group[-1] for group in ordered], [other for group in ordered for other in group[:-1]]


def _store(course: Course, assignment: str, archive: zipfile.ZipFile, candidate: _Candidate) -> Entry:
    name, student = candidate.info.filename, candidate.student
    target = course.submitted(student, assignment) / f"{assignment}.ipynb"
    try:
        data = _read(archive, candidate.info)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        return Entry(name, student, "refused", f"cannot be read: {error}")
    if any(folder.is_symlink() for folder in (target, target.parent, target.parent.parent)):
        return Entry(name, student, "refused", "a link stands where the submission belongs")
    before = target.read_bytes() if target.is_file() else None
    if before != data:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        partial.write_bytes(data)
        partial.replace(target)
    outcome = "collected" if before is None else "unchanged" if before == data else "updated"
    return Entry(name, student, outcome, candidate.note)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    # The size in the archive's directory may lie; what is read may not exceed it, nor our bound.
    with archive.open(info) as file:
        data = b"".join(_pieces(file))
    if len(data) > MAX_BYTES:
        raise OSError(f"larger than {MAX_BYTES // 2**20} MiB")
    return data


def _pieces(file: zipfile.ZipExtFile) -> Iterator[bytes]:
    size = 0
    while size <= MAX_BYTES and (piece := file.read(2**20)):
        size += len(piece)
        yield piece
