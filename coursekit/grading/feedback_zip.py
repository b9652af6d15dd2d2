"""Giving feedback back: the pages of a class in one zip, named as the LMS named the submissions.

Moodle takes it as "Upload multiple feedback files in a zip", Canvas as "Upload Submissions" of the gradebook.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coursekit.errors import InputError, require
from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.lms_names import read_names
from coursekit.grading.pipeline import unchanged
from coursekit.grading.report import Result

# An honest page has a tenth of it; what a whole class has must pass through an LMS's upload.
MAX_PAGE_BYTES = 8 * 2**20
NO_NAME = "as no name of the LMS's is known (add it to lms_names/, or send the page by hand)"
NOT_GRADED = "as they are not graded, or not as handed in last (coursekit grade)"
WAITING = "as an answer waits for a person (coursekit course answers)"
TOO_LARGE = f"as the page is larger than {MAX_PAGE_BYTES // 2**20} MiB"


@dataclass(frozen=True)
class Packed:
    """Whose pages are in the zip, and whose are not, by the reason."""

    students: list[str]
    left_out: dict[str, list[str]]


def pack_feedback(course: Course, assignment: str, destination: Path) -> Packed:
    """Write the feedback pages of an assignment, as the gradebook is now, into a zip for the LMS.

    The same pages give the same bytes. A page is in it if its grade is that of the present submission and
    exercise and final, and if the LMS's name of the submission is known.
    Raises: InputError if no page could be packed; then nothing is written.
    """
    course.require(assignment)
    students = course.students(assignment)
    graded = unchanged(course, assignment, students=students)
    waiting = {student for student, _ in journal.waiting(course.gradebook, assignment)}
    names = read_names(course, assignment)
    left_out: dict[str, list[str]] = {}
    ready = []
    for student in students:
        has_page = course.feedback(student, assignment).is_file()
        reason = _why_not(student, graded if has_page else {}, waiting, names)
        (left_out.setdefault(reason, []) if reason else ready).append(student)
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    packed = []
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for student, page in _pages(course, assignment, [graded[student] for student in ready]):
                if len(page) > MAX_PAGE_BYTES:
                    left_out.setdefault(TOO_LARGE, []).append(student)
                    continue
                archive.writestr(_entry(f"{names[student]}{assignment}.html"), page)
                packed.append(student)
        if not packed:
            why = "; ".join(f"{len(those)}: {reason}" for reason, those in left_out.items())
            raise InputError(f"no page of {assignment} to give back", got=why or "no submission")
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
    return Packed(packed, left_out)


def _why_not(student: str, graded: dict[str, Result], waiting: set[str], names: dict[str, str]) -> str:
    if student not in graded:
        return NOT_GRADED
    if student in waiting and graded[student].status == "graded":
        return WAITING
    return "" if student in names else NO_NAME


def _pages(course: Course, assignment: str, results: list[Result]) -> Iterator[tuple[str, bytes]]:
    """Yield each student's page, written anew: points of the formgrader have changed none."""
    from coursekit.grading.feedback import feedback_pages, write_feedback
    from coursekit.grading.late import renew_penalties

    nbgrader = require("nbgrader.api", extra="grading")
    with nbgrader.Gradebook(f"sqlite:///{course.gradebook}") as book:
        renew_penalties(book, course, [assignment])
        pages = feedback_pages(course, assignment, gradebook=book)
        for result in results:
            if result.status == "graded":
                write_feedback(course, assignment, student=result.student, pages=pages)
            yield result.student, course.feedback(result.student, assignment).read_bytes()


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry that says nothing of when or where it was packed."""
    entry = zipfile.ZipInfo(name)  # of 1980
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
