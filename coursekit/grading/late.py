"""Late work: the deadline, extensions, and what lateness costs of the points as they are now."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.preprocessors import AssignLatePenalties
from traitlets import Float

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.moments import parse_time
from coursekit.grading.nbgrader_tools import load_config

SECONDS_PER_DAY = 86_400


class PercentPerDay(LateSubmissionPlugin):
    """Takes a part of the points reached for each day, begun, that a submission is late."""

    percent = Float(10.0, min=0.0, max=100.0, help="Percent of the points reached, a day.").tag(config=True)

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float:
        """Return the points to take off; all of them at most."""
        days = math.ceil(total_seconds_late / SECONDS_PER_DAY)
        return score * min(1.0, days * self.percent / 100)


@dataclass(frozen=True)
class Lateness:
    """A student who is late or has an extension. Times are UTC; seconds_late counts from the extended end."""

    student: str
    handed_in: datetime | None
    extension: timedelta | None
    seconds_late: float
    penalty: float


def renew_penalty(book: Gradebook, config: Any, assignment: str, *, student: str) -> bool:
    """Compute a submission's penalty from its points and times of now; return whether it is another.

    Does not commit: it belongs to what was changed before.
    """
    book.db.flush()  # scores are computed by the database, from what was written above
    submission = book.find_submission(assignment, student)
    notebook = book.find_submission_notebook(assignment, assignment, student)
    book.db.refresh(notebook)
    before, notebook.late_submission_penalty = notebook.late_submission_penalty, None
    late = submission.total_seconds_late
    if late > 0:
        penalties = AssignLatePenalties(config=config)
        penalties.init_plugin()
        penalty = penalties.plugin_inst.late_submission_penalty(student, notebook.score, late)
        if penalty is not None:
            notebook.late_submission_penalty = penalties._check_late_penalty(notebook, penalty)
    return (before or 0.0) != (notebook.late_submission_penalty or 0.0)


def renew_penalties(book: Gradebook, course: Course, assignments: Collection[str]) -> set[tuple[str, str]]:
    """Renew the penalties of all submissions; return (assignment, student) of those that are others."""
    config = load_config(course)
    renewed = {
        (name, submission.student_id)
        for name in assignments
        for submission in book.assignment_submissions(name)
        if submission.notebooks and renew_penalty(book, config, name, student=submission.student_id)
    }
    book.db.commit()
    return renewed


def change_and_read(
    course: Course,
    assignment: str,
    *,
    due: str | None = None,
    students: Collection[str] = (),
    until: str | None = None,
) -> tuple[datetime | None, list[Lateness]]:
    """Set a deadline, give extensions, renew penalties and the pages that show them.

    Args:
        course: the course folder.
        assignment: the exercise.
        due: the deadline for all who have no extension, as `parse_time` reads it.
        students: who may hand in until `until`; an earlier extension is replaced.
        until: when their extension ends.
    Returns: the deadline in UTC, and who is late or has an extension.
    Raises: InputError for what is no time, nobody's id, or an extension that ends before the deadline.
    """
    from coursekit.grading.feedback import feedback_pages, write_feedback

    end = parse_time(until) if until else None
    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        if due:
            _move_due(book, assignment, parse_time(due))
        for student in students if end else ():
            _extend(book, assignment, student=student, until=end)
        renewed = renew_penalties(book, course, [assignment])
        pages = feedback_pages(course, assignment, gradebook=book) if renewed else None
        for _, student in sorted(renewed):
            if course.autograded(student, assignment).is_file():
                write_feedback(course, assignment, student=student, pages=pages)
        moment = book.find_assignment(assignment).duedate
        return moment and moment.replace(tzinfo=UTC), _read(book, assignment)


def _move_due(book: Gradebook, assignment: str, due: datetime) -> None:
    """Set the deadline; extensions, which nbgrader keeps as lengths, end when they did."""
    before = book.find_assignment(assignment).duedate
    book.update_or_create_assignment(assignment, duedate=due)
    moved = book.find_assignment(assignment).duedate - before if before else timedelta(0)
    for submission in book.assignment_submissions(assignment):
        if submission.extension is not None:
            submission.extension = max(timedelta(0), submission.extension - moved) or None
    book.db.commit()


def _extend(book: Gradebook, assignment: str, *, student: str, until: datetime) -> None:
    due, end = book.find_assignment(assignment).duedate, until.replace(tzinfo=None)
    if due is None:
        raise InputError(f"{assignment} has no deadline to extend", fix="say --due first")
    if end < due:
        raise InputError("an extension before the deadline", expected=f"after {due} UTC", got=f"{end} UTC")
    try:
        book.find_student(student)
    except MissingEntry:
        raise InputError("no such student", got=repr(student), fix="see: coursekit course roster") from None
    try:
        book.find_submission(assignment, student)
    except MissingEntry:
        with book.db.no_autoflush:  # nbgrader fills a new submission before it adds it to the session
            submission = book.add_submission(assignment, student)
        for grade in [grade for notebook in submission.notebooks for grade in notebook.grades]:
            grade.needs_manual_grade = False  # nbgrader makes grades that wait for a person
    book.grant_extension(assignment, student, minutes=(end - due).total_seconds() / 60)


def _read(book: Gradebook, assignment: str) -> list[Lateness]:
    found = [
        Lateness(s.student_id, s.timestamp, s.extension, s.total_seconds_late, s.late_submission_penalty or 0)
        for s in book.assignment_submissions(assignment)
        if s.total_seconds_late or s.extension
    ]
    return sorted(found, key=lambda one: one.student)
