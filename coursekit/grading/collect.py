"""Collecting: an LMS's zip of submissions, read entry by entry into submitted/.

Nothing is unpacked: an entry that is accepted is read into memory, bounded, and written under our own name.
nbgrader's own zip_collect unpacks first: a hostile archive is then on the disk before anybody looks at it.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.handed_in import forget, is_stamped, stamp
from coursekit.grading.intake import MAX_BYTES, RejectedError, parse_answers, slug_in
from coursekit.grading.lms_names import LmsName, canvas_name, moodle_name, read_names, write_names
from coursekit.grading.people import Match, by_folder, by_lms, folded, same_id
from coursekit.grading.rebuild import grade_id_of, is_solution, rebuild
from coursekit.grading.roster import Student, read_roster, read_students, valid_id
from coursekit.grading.template import load_template

MAX_ENTRIES = 100_000
_UNREADABLE = (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
# Browsers put .txt or .json behind the name of a notebook that they take for text.
_NOTEBOOK = re.compile(r"\.ipynb(\.txt|\.json)?$")


@dataclass(frozen=True)
class Entry:
    """What became of one entry of the archive: "collected", "updated", "unchanged" or "refused"."""

    name: str
    student: str
    outcome: str
    reason: str = ""
    late: bool | None = None  # where the LMS says it


@dataclass(frozen=True)
class _Candidate:
    info: zipfile.ZipInfo
    student: str
    file: str
    note: str = ""
    lms: LmsName | None = None  # by which it was found


@dataclass(frozen=True)
class _People:
    """The roster, what to do with those who are not on it, and every id in use by its folded spelling."""

    roster: Sequence[Student]
    add_unknown: bool
    lms_ids: bool
    in_use: dict[str, str]


def collect(
    course: Course,
    assignment: str,
    *,
    archive: Path,
    add_unknown: bool = False,
    lms_ids: bool = False,
    handed_in: datetime | None = None,
) -> list[Entry]:
    """Put a notebook of each student, the newest with work in it, into submitted/

    Canvas, Moodle and plain <student>/<assignment>.ipynb names are understood and looked up in the roster, by
    name; by an LMS's number only with `lms_ids`. Who is not in the roster is refused unless `add_unknown`; a
    course without a roster takes plain folders as they are. `handed_in`, in UTC, is noted as the time of what
    is new or changed, for late penalties; not of what Canvas says is on time. The times in the archive are
    those at which the LMS packed it.
    Raises: InputError if the assignment or the archive is not there, the archive is no zip file, or a person
        has written something else than names into lms_names/.
    """
    course.require(assignment)
    names = read_names(course, assignment)  # what is wrong there is told before anything is written
    people = _People(read_roster(course), add_unknown, lms_ids, _ids_in_use(course))
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
        sorted_out = [_sort_out(opened, info, assignment, people) for info in infos]
        entries = [item for item in sorted_out if isinstance(item, Entry)]
        candidates = [item for item in sorted_out if isinstance(item, _Candidate)]
        has_work = partial(_has_work, course, assignment, opened)
        for chosen, others in _choose(candidates, assignment, has_work):
            why = f"an older or another file: {chosen.info.filename} counts"
            entries += [Entry(c.info.filename, c.student, "refused", why) for c in others]
            entries.append(_store(course, assignment, opened, chosen, handed_in))
            if chosen.lms and entries[-1].outcome != "refused":
                names[chosen.student] = chosen.lms.given
    write_names(course, assignment, names)
    return sorted(entries, key=lambda entry: (entry.outcome == "refused", entry.student, entry.name))


def without_submission(course: Course, assignment: str) -> list[Student]:
    """Return the students of the roster who have handed in nothing, or nothing that could be taken in."""
    handed_in = set(course.students(assignment))
    return [student for student in read_roster(course) if student.id not in handed_in]


def _ids_in_use(course: Course) -> dict[str, str]:
    folders = [path.name for path in sorted((course.root / "submitted").glob("*")) if valid_id(path.name)]
    return {same_id(name): name for name in [*folders, *(s.id for s in read_students(course))]}


def _is_noise(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename).parts
    return info.is_dir() or "__MACOSX" in parts or (bool(parts) and parts[-1] in (".DS_Store", "Thumbs.db"))


def _sort_out(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, assignment: str, people: _People
) -> Entry | _Candidate:
    name = info.filename.replace("\\", "/")
    if reason := _refusal(info, name):
        return Entry(info.filename, "", "refused", reason)
    candidate = _whose(info, name, assignment, people)
    if not candidate.student:
        return Entry(info.filename, "", "refused", candidate.note)
    if not valid_id(candidate.student):
        return Entry(info.filename, candidate.student, "refused", "this student's name cannot be a folder's")
    try:
        slug = slug_in(_read(archive, info))
    except _UNREADABLE as error:
        return Entry(info.filename, candidate.student, "refused", f"cannot be read: {error}")
    if slug and slug != assignment:  # what is no notebook is for grading to reject
        return Entry(info.filename, candidate.student, "refused", f"this is the notebook of {slug}")
    return candidate


def _refusal(info: zipfile.ZipInfo, name: str) -> str:
    mode = info.external_attr >> 16
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/") or "\0" in name:
        return "its path leads out of the folder"
    if stat.S_ISLNK(mode) or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        return "a link or a special file"
    if info.flag_bits & 1:
        return "encrypted"
    if ".ipynb_checkpoints" in name.split("/"):
        return "a checkpoint copy, not a submission"
    if not _NOTEBOOK.search(name.lower()):
        return "not a notebook (.ipynb)"
    if info.file_size > MAX_BYTES:
        return f"larger than {MAX_BYTES // 2**20} MiB"
    return ""


def _whose(info: zipfile.ZipInfo, name: str, assignment: str, people: _People) -> _Candidate:
    path = PurePosixPath(name)
    if moodle := moodle_name(path):
        student, note = _lms_student(moodle, people)
        return _Candidate(info, student, PurePosixPath(moodle.file).name, note, moodle)
    folders = [part for part in path.parts[:-1] if part != assignment]
    named = dict.fromkeys(filter(None, (by_folder(part, people.roster).student for part in folders)))
    if len(named) > 1:
        return _Candidate(info, "", path.name, f"its folders name several students: {', '.join(named)}")
    owner = next(iter(named), "")
    if canvas := canvas_name(path.name):
        student, note = _lms_student(canvas, people)
        file = canvas.file
        if owner:
            # A student's folder whose file happens to be named as Canvas does; two names must not differ.
            note = note if student in ("", owner) else f"the folder is {owner}'s, the name {student}'s"
            canvas = canvas if student == owner else None
            student = owner if student in ("", owner) else ""
        note = "; ".join(filter(None, ("late" if student and canvas and canvas.late else "", note)))
        return _Candidate(info, student, file, note, canvas)
    if folders:
        student, note = _folder_student(owner or folders[-1], people)
        return _Candidate(info, student, path.name, note)
    student = by_folder(path.stem, people.roster).student
    return _Candidate(info, student, path.name, "" if student else "no student can be told from this name")


def _lms_student(lms: LmsName, people: _People) -> tuple[str, str]:
    """Return a student's id, or "", and a note why."""
    found = by_lms(lms.name, lms.number, people.roster, lms_ids=people.lms_ids)
    # Moodle counts participants anew for each assignment: the number alone would be someone else's next week.
    new = lms.number if people.lms_ids else f"{folded(lms.name)}_{lms.number}"
    return _settle(found, new, people)


def _folder_student(folder: str, people: _People) -> tuple[str, str]:
    """Return a student's id, or "", and a note why."""
    if not people.roster:
        return people.in_use.setdefault(same_id(folder), folder), ""
    return _settle(by_folder(folder, people.roster), folder, people)


def _settle(found: Match, new: str, people: _People) -> tuple[str, str]:
    if not (found.unknown and people.add_unknown):
        return found.student, found.reason
    if any(same_id(student.id) == same_id(new) for student in people.roster):
        return "", f"{found.reason}; {new} is another student's id"
    return people.in_use.setdefault(same_id(new), new), found.reason


def _choose(
    candidates: Sequence[_Candidate], assignment: str, has_work: Callable[[_Candidate], bool]
) -> list[tuple[_Candidate, list[_Candidate]]]:
    """Return one candidate a student and the others.

    One with work in it first, whatever is newer; then the assignment's own name; then the newest.
    """

    def rank(candidate: _Candidate) -> tuple:
        own_name = candidate.file.startswith(assignment)
        upload = candidate.lms.upload if candidate.lms else 0
        return has_work(candidate), own_name, upload, candidate.info.date_time

    by_student: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        by_student.setdefault(candidate.student, []).append(candidate)
    ordered = [sorted(group, key=rank) if group[1:] else group for group in by_student.values()]
    return [(group[-1], group[:-1]) for group in ordered]


def _has_work(course: Course, assignment: str, archive: zipfile.ZipFile, candidate: _Candidate) -> bool:
    """Return whether a student has written anything in a notebook of this assignment."""
    try:
        answers = parse_answers(_read(archive, candidate.info))
        rebuilt = rebuild(load_template(course, assignment), answers)
    except RejectedError:
        return False
    mine = {grade_id_of(cell) for cell in rebuilt.notebook["cells"] if is_solution(cell)}
    return bool(mine - rebuilt.unanswered)


def _store(
    course: Course,
    assignment: str,
    archive: zipfile.ZipFile,
    candidate: _Candidate,
    handed_in: datetime | None,
) -> Entry:
    name, student = candidate.info.filename, candidate.student
    target = course.submitted(student, assignment) / f"{assignment}.ipynb"
    data = _read(archive, candidate.info)
    if any(folder.is_symlink() for folder in (target, target.parent, target.parent.parent)):
        return Entry(name, student, "refused", "a link stands where the submission belongs")
    before = target.read_bytes() if target.is_file() else None
    if before != data:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.write_bytes(data)
        part.replace(target)
    if before not in (None, data):
        forget(target.parent)  # the time of what lay there
    late = candidate.lms.late if candidate.lms else None
    new = before != data or (late and not is_stamped(target.parent))
    if handed_in and late is not False and new:
        stamp(target.parent, handed_in)
    outcome = "collected" if before is None else "unchanged" if before == data else "updated"
    return Entry(name, student, outcome, candidate.note, late)


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
