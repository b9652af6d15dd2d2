"""The roster: students read from a CSV file into the gradebook."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from coursekit.errors import InputError, require
from coursekit.grading import lms_roster
from coursekit.grading.course import Course
from coursekit.grading.journal import open_to_read
from coursekit.grading.nbgrader_tools import find_programs

COLUMNS = ("id", "first_name", "last_name", "email")
# An id becomes the name of a folder: letters, digits, and no way out of submitted/.
_ID = re.compile(r"\w[\w.@+-]{0,99}")
_DETAILS = (*COLUMNS[1:], "lms_user_id")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True)
class Student:
    """A person on the roster; what is not known is "". lms_user_id: Canvas' own number of the person."""

    id: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    lms_user_id: str = ""


def valid_id(student: str) -> bool:
    """Return whether a student's id can be the name of a folder.

    >>> valid_id("ada.lovelace"), valid_id("../ada"), valid_id(".ada"), valid_id("ada lovelace")
    (True, False, False, False)
    """
    return _ID.fullmatch(student) is not None


def parse_roster(data: bytes) -> list[Student]:
    """Return the students of a CSV file with the columns id, first_name, last_name, email (id is enough).

    Moodle's and Canvas' own exports are read, too, their first line in English.
    Commas, semicolons or tabs; with or without a byte-order mark.
    Raises: InputError that lists every line with a fault.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "the roster is not UTF-8 text", got=f"byte {error.start}", fix="save it as UTF-8"
        ) from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    _check_header(reader.fieldnames)
    students, faults = _read_rows(reader)
    if faults:
        raise InputError("the roster was not imported:\n  " + "\n  ".join(faults))
    return students


def import_roster(course: Course, path: Path) -> tuple[int, int]:
    """Add or update the students of a CSV file in the gradebook; return (added, updated).

    An empty field leaves what is known; nobody is ever deleted.
    Raises: InputError if the file is not there or has faults; then nothing is imported.
    """
    if not Path(path).is_file():
        raise InputError("no such roster", expected="a CSV file", got=path)
    students = parse_roster(Path(path).read_bytes())
    known = {student.id: student for student in read_students(course)}
    enrolled = {student.id for student in read_roster(course)}
    find_programs()
    with require("nbgrader.api", extra="grading").Gradebook(f"sqlite:///{course.gradebook}") as gradebook:
        for student in students:
            values = {name: getattr(student, name) for name in _DETAILS if getattr(student, name)}
            if student.id not in enrolled:
                values.setdefault("email", "")  # tells who is on the roster from who was only graded (NULL)
            gradebook.update_or_create_student(student.id, **values)
    added = sum(student.id not in known for student in students)
    return added, sum(_changes(student, known.get(student.id)) for student in students)


def read_students(course: Course) -> list[Student]:
    """Return the students that the gradebook knows, by id."""
    return _select(course, "")


def read_roster(course: Course) -> list[Student]:
    """Return the students that a roster put into the gradebook, not those that grading met in submitted/."""
    return _select(course, "WHERE coalesce(first_name, last_name, email) IS NOT NULL")


def _select(course: Course, where: str) -> list[Student]:
    if not course.gradebook.is_file():
        return []
    with closing(open_to_read(course.gradebook)) as connection:
        rows = connection.execute(
            f"SELECT id, first_name, last_name, email, lms_user_id FROM student {where} ORDER BY id"
        ).fetchall()
    return [Student(*(value or "" for value in row)) for row in rows]


def _check_header(names: Sequence[str]) -> None:
    ours = "id" in names and not set(names) - set(COLUMNS)
    if not (ours or lms_roster.is_moodle(names) or lms_roster.is_canvas(names)):
        raise InputError(
            "the roster's first line names other columns",
            expected=f"{','.join(COLUMNS)}, or an export of Moodle's or Canvas' in English",
            got=",".join(names),
        )


def _read_rows(reader: csv.DictReader) -> tuple[list[Student], list[str]]:
    students, faults, seen, lines, rows = [], [], {}, [], []
    for row in reader:
        if row.get(None) or None in row.values():  # type: ignore[call-overload]
            faults.append(f"line {reader.line_num}: {len(reader.fieldnames or [])} columns expected")
            continue
        lines.append(reader.line_num)
        rows.append({name: value.strip() for name, value in row.items()})
    for line, ours in zip(lines, _in_our_columns(reader.fieldnames or [], rows), strict=True):
        if not ours or not any(ours.values()):
            continue
        student = Student(**ours)
        fault = _fault(student, seen.setdefault(student.id.casefold(), line), line)
        faults += [f"line {line}: {fault}"] if fault else []
        students.append(student)
    return students, faults


def _in_our_columns(names: Sequence[str], rows: Sequence[dict[str, str]]) -> Sequence[dict[str, str] | None]:
    """Return rows in our columns; None where one is no student."""
    if lms_roster.is_moodle(names):
        return lms_roster.from_moodle(rows)
    return lms_roster.from_canvas(rows) if lms_roster.is_canvas(names) else rows


def _fault(student: Student, first_line: int, line: int) -> str:
    if not student.id:
        return "no id"
    if not valid_id(student.id):
        return f"id {student.id!r}: letters, digits and . _ @ + - only, not starting with a sign"
    if first_line != line:
        return f"id {student.id!r} stands in line {first_line} already"
    if student.email and not _EMAIL.fullmatch(student.email):
        return f"{student.email!r} is no e-mail address"
    return ""


def _changes(student: Student, known: Student | None) -> bool:
    if known is None:
        return False
    return any(getattr(student, name) not in ("", getattr(known, name)) for name in _DETAILS)
