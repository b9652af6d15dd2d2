"""The state of a course: how many submissions each assignment has, and how far their grading is."""

from __future__ import annotations

from dataclasses import dataclass

from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.pipeline import unchanged


@dataclass(frozen=True)
class AssignmentStatus:
    """Counts of one assignment; `waiting` counts answers that a person has yet to grade."""

    name: str
    released: bool
    submitted: int
    graded: int
    rejected: int
    to_grade: int
    waiting: int


def course_status(course: Course) -> list[AssignmentStatus]:
    """Return a line for each assignment that has a source, without loading nbgrader."""
    return [_status(course, assignment) for assignment in course.assignments()]


def _status(course: Course, assignment: str) -> AssignmentStatus:
    students = course.students(assignment)
    results = unchanged(course, assignment, students=students).values() if students else ()
    statuses = [result.status for result in results]
    return AssignmentStatus(
        assignment,
        released=journal.stamped_version(course.gradebook, assignment) is not None
        or course.release(assignment).is_file(),
        submitted=len(students),
        graded=statuses.count("graded"),
        rejected=statuses.count("rejected"),
        to_grade=len(students) - len(statuses),
        waiting=sum(student in students for student, _ in journal.waiting(course.gradebook, assignment)),
    )
