"""The gradebook as a table of students and exercises, and that table in the columns other systems import."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from coursekit.errors import InputError
from coursekit.grading.changes import entries
from coursekit.grading.course import Course
from coursekit.grading.roster import Student

Rows = list[list[str]]

# A grade that a machine or a person gave: an extension alone makes a submission in nbgrader's tables, too.
_GRADED = """
SELECT DISTINCT submitted_assignment.student_id FROM grade
JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id
JOIN submitted_assignment ON submitted_assignment.id = submitted_notebook.assignment_id
JOIN assignment ON assignment.id = submitted_assignment.assignment_id
WHERE assignment.name = :assignment AND (grade.auto_score IS NOT NULL OR grade.manual_score IS NOT NULL)
"""
CSV_COLUMNS = (
    "assignment",
    "student_id",
    "last_name",
    "first_name",
    "email",
    "status",
    "score",
    "max_score",
    "raw_score",
    "late_penalty",
    "answers_waiting",
    "handed_in",
    "graded_at",
    "exercise_version",
)


@dataclass(frozen=True)
class Grade:
    """One student's grade for one exercise.

    score: points after the late penalty, as nbgrader counts them; raw_score: before it.
    waiting: whether an answer still waits for a person, so that the score is not final.
    status, graded_at, version: what the journal says; "" if nbgrader itself graded.
    """

    score: float
    raw_score: float
    penalty: float
    waiting: bool
    handed_in: str
    status: str = ""
    graded_at: str = ""
    version: str = ""


@dataclass(frozen=True)
class Gradesheet:
    """Students, exercises (name -> most points), and the grades there are by (student's id, exercise)."""

    students: Sequence[Student]
    assignments: dict[str, float]
    grades: dict[tuple[str, str], Grade]

    def withheld(self) -> list[str]:
        """Return "student: exercise" of the grades that are not final."""
        return [f"{student}: {name}" for (student, name), grade in self.grades.items() if grade.waiting]


def read_gradesheet(
    gradebook: Any, course: Course, *, assignments: Collection[str] = (), students: Collection[str] = ()
) -> Gradesheet:
    """Return the grades of an open nbgrader gradebook; of all if no names are given.

    Raises: InputError if a name is not in the gradebook.
    """
    known = {assignment.name: assignment.max_score for assignment in gradebook.assignments}
    people = {
        person.id: Student(person.id, *(shielded(value or "") for value in _details(person)))
        for person in gradebook.students
    }
    _require(assignments, known, "exercise")
    _require(students, people, "student")
    chosen = {name: points for name, points in known.items() if not assignments or name in assignments}
    wanted = {student: person for student, person in people.items() if not students or student in students}
    grades = {
        (student, name): grade
        for name in chosen
        for student, grade in _grades(gradebook, course, name).items()
        if student in wanted
    }
    return Gradesheet(list(wanted.values()), chosen, grades)


def csv_rows(sheet: Gradesheet) -> Rows:
    """Return a line for each student and exercise, with all that is known; no submission, no score."""
    rows = [list(CSV_COLUMNS)]
    for name, points in sheet.assignments.items():
        for student in sheet.students:
            who = [name, shielded(student.id), student.last_name, student.first_name, student.email]
            rows.append(who + _csv_grade(sheet.grades.get((student.id, name)), points))
    return rows


def shielded(text: str) -> str:
    """Return text that a spreadsheet takes for text, not for a formula: people choose their own names.

    >>> shielded("=1+1"), shielded("O'Hara"), shielded("-")
    ("'=1+1", "O'Hara", '-')
    """
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") and len(text) > 1 else text


def canvas_rows(sheet: Gradesheet) -> Rows:
    """Return what Canvas' gradebook imports: its five columns, one an exercise, and the line of points.

    Canvas finds people by its own number, which we know if the roster came from there, else by SIS User ID,
    SIS Login ID or name: the roster's id stands in both SIS columns. A column belongs to the Canvas
    assignment of the same name. A grade that is not final is left empty, which Canvas leaves as it is.
    Source: instructure/canvas-lms, lib/gradebook_importer.rb.
    """
    names = list(sheet.assignments)
    rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names]]
    rows.append(
        ["    Points Possible", "", "", "", "", *(_number(sheet.assignments[name]) for name in names)]
    )
    for student in sheet.students:
        shown = shielded(student.id)
        full = ", ".join(filter(None, (student.last_name, student.first_name))) or shown
        who = [full, student.lms_user_id, shown, shown, ""]
        rows.append([*who, *_final(sheet, student, names, none="")])
    return rows


def moodle_rows(sheet: Gradesheet) -> Rows:
    """Return what Moodle's grade import reads: people by ID number or e-mail address, a column an exercise.

    Moodle asks which column is which. "-" is its sign for no grade; a person without any grade has no line.
    Source: moodle/moodle, grade/import/csv/classes/load_data.php.
    """
    names = list(sheet.assignments)
    rows = [["First name", "Last name", "ID number", "Email address", *names]]
    for student in sheet.students:
        points = _final(sheet, student, names, none="-")
        if set(points) != {"-"}:
            who = [student.first_name, student.last_name, shielded(student.id), student.email]
            rows.append([*who, *points])
    return rows


def _details(person: Any) -> tuple[str | None, ...]:
    return person.first_name, person.last_name, person.email, person.lms_user_id


def _grades(gradebook: Any, course: Course, assignment: str) -> dict[str, Grade]:
    from sqlalchemy import text

    graded = {row[0] for row in gradebook.db.execute(text(_GRADED), {"assignment": assignment})}
    noted = entries(course, assignment)
    return {
        submission.student_id: _grade(submission, noted.get(submission.student_id))
        for submission in gradebook.assignment_submissions(assignment)
        if submission.student_id in graded
    }


def _grade(submission: Any, entry: Any) -> Grade:
    penalty = submission.late_submission_penalty or 0.0
    handed_in = f"{submission.timestamp:%Y-%m-%d %H:%M:%S} UTC" if submission.timestamp else ""
    note = (entry.result.status, entry.graded_at, entry.version) if entry else ()
    score = max(0.0, submission.score - penalty)
    return Grade(score, submission.score, penalty, bool(submission.needs_manual_grade), handed_in, *note)


def _csv_grade(grade: Grade | None, max_score: float) -> list[str]:
    if grade is None:
        return ["", "", _number(max_score), "", "", "", "", "", ""]
    numbers = [_number(points) for points in (grade.score, max_score, grade.raw_score, grade.penalty)]
    waits = "yes" if grade.waiting else "no"
    return [grade.status, *numbers, waits, grade.handed_in, grade.graded_at, grade.version]


def _final(sheet: Gradesheet, student: Student, names: list[str], *, none: str) -> list[str]:
    grades = [sheet.grades.get((student.id, name)) for name in names]
    return [none if grade is None or grade.waiting else _number(grade.score) for grade in grades]


def _number(points: float) -> str:
    """Return points with at most two decimals and a point, which both systems read in any language."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def _require(names: Collection[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"no such {what} in the gradebook", got=repr(name))
