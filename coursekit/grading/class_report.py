"""The class report: how a class did in one exercise, as numbers; `class_page` makes the page of them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from coursekit.errors import InputError
from coursekit.grading import journal
from coursekit.grading.changes import Entry, entries
from coursekit.grading.course import Course
from coursekit.grading.gradesheet import shielded
from coursekit.grading.intake import RejectedError, parse_answers, read_submission
from coursekit.grading.rebuild import grade_id_of, is_solution, rebuild
from coursekit.grading.record import replace_text
from coursekit.grading.roster import read_students
from coursekit.grading.similarity import Likeness, near_identical
from coursekit.grading.template import load_template
from coursekit.notebooks.scoring import CellScore

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,]*(?:e[-+]?\d+)?")
CSV_COLUMNS = ("section", "what", "students", "share", "detail")


@dataclass(frozen=True)
class Task:
    """How a class did in one graded cell.

    share: points earned of all that could be, 0 to 1; full, none: how many students have all, and none.
    waiting: answers that a person has yet to read; they are in no other number here.
    """

    grade_id: str
    max_score: float
    share: float | None
    full: int
    none: int
    waiting: int


@dataclass(frozen=True)
class Failure:
    """A message that several students got from one cell, numbers aside; `example` is one of them in full."""

    grade_id: str
    message: str
    students: tuple[str, ...]
    example: str


@dataclass(frozen=True)
class ClassReport:
    """What a class handed in and earned.

    scores: student -> points, in order of points. names: student -> full name.
    versions: version of the exercise -> how many grades.
    flags: kind of flag -> "student" or "student: where".
    """

    assignment: str
    max_score: float
    scores: dict[str, float]
    rejected: tuple[str, ...]
    not_graded: tuple[str, ...]
    tasks: tuple[Task, ...]
    failures: tuple[Failure, ...]
    flags: dict[str, tuple[str, ...]]
    likeness: Likeness
    versions: dict[str, int]
    waiting: int
    names: dict[str, str]

    @property
    def hardest(self) -> Task | None:
        """The task with the smallest share of its points earned, of those that nobody has yet to read.

        Of answers the empty ones are scored at once, so that a task half read looks harder than it is.
        """
        tasks = [task for task in self.tasks if task.share is not None and not task.waiting]
        return min(tasks, key=lambda task: task.share, default=None)


def class_report(course: Course, assignment: str) -> ClassReport:
    """Return how the class did, from the grades that count and the submissions as they lie there.

    Raises: InputError if the assignment is not there, or nothing of it is graded.
    """
    course.require(assignment)
    noted = entries(course, assignment)
    if not noted:
        raise InputError(f"nothing of {assignment} is graded yet", fix=f"run: coursekit grade {assignment}")
    results = [entry.result for entry in noted.values()]
    graded = [result for result in results if result.status == "graded"]
    points = sorted((result.score or 0.0, result.student) for result in results)
    return ClassReport(
        assignment,
        max_score=max(result.max_score or 0.0 for result in results),
        scores={student: score for score, student in points},
        rejected=tuple(result.student for result in results if result.status == "rejected"),
        not_graded=tuple(student for student in course.students(assignment) if student not in noted),
        tasks=tuple(_tasks(cell for result in graded for cell in result.cells)),
        failures=tuple(_failures(noted.values())),
        flags=_flags(noted.values()),
        likeness=likeness(course, assignment, students=[result.student for result in graded]),
        versions=dict(Counter(entry.version for entry in noted.values())),
        waiting=sum(student in noted for student, _ in journal.waiting(course.gradebook, assignment)),
        names={
            student.id: f"{student.first_name} {student.last_name}".strip()
            for student in read_students(course)
        },
    )


def likeness(course: Course, assignment: str, *, students: Iterable[str]) -> Likeness:
    """Return which of these students' submissions are near-identical, in the code of their solution cells."""
    template = load_template(course, assignment)
    answers: dict[str, dict[str, str]] = {}
    for student in students:
        try:
            data = read_submission(course, assignment, student=student).data
            notebook = rebuild(template, parse_answers(data)).notebook
        except RejectedError:
            continue
        cells = [cell for cell in notebook["cells"] if is_solution(cell) and cell["cell_type"] == "code"]
        answers[student] = {str(grade_id_of(cell)): cell["source"] for cell in cells}
    return near_identical(answers, stubs=template.released)


def csv_text(report: ClassReport) -> str:
    """Return the whole report as one CSV table: section, what, students, share, detail."""
    count = max(1, len(report.scores))
    rows: list[Sequence[object]] = [CSV_COLUMNS]
    for score, students in _by_score(report).items():
        rows.append(("score", f"{score:g}", len(students), len(students) / count, " ".join(students)))
    for task in report.tasks:
        detail = f"full {task.full}, none {task.none}, waiting {task.waiting}"
        rows.append(("task", task.grade_id, "", "" if task.share is None else round(task.share, 4), detail))
    for failure in report.failures:
        share = len(failure.students) / count
        rows.append(("failure", failure.grade_id, len(failure.students), share, failure.example))
    for kind, who in report.flags.items():
        rows.append(("flag", kind, len(who), len(who) / count, "; ".join(who)))
    for pair in report.likeness.pairs:
        detail = f"verbatim {pair.verbatim_percent} %"
        rows.append(("near-identical", f"{pair.left} and {pair.right}", 2, pair.percent / 100, detail))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue()


def write_class_report(course: Course, assignment: str, folder: Path) -> tuple[Path, Path]:
    """Write ASSIGNMENT.html and ASSIGNMENT.csv into `folder` and return the two paths."""
    from coursekit.grading.class_page import page

    report = class_report(course, assignment)
    html, table = (Path(folder) / f"{assignment}.{suffix}" for suffix in ("html", "csv"))
    found = {student: course.feedback(student, assignment) for student in report.scores}
    pages = {
        student: quote(os.path.relpath(path, folder)) for student, path in found.items() if path.is_file()
    }
    replace_text(html, page(report, pages))
    replace_text(table, csv_text(report))
    return html, table


def _tasks(cells: Iterable[CellScore]) -> list[Task]:
    by_id: dict[str, list[CellScore]] = defaultdict(list)
    for cell in cells:
        by_id[cell.grade_id].append(cell)
    return [_task(grade_id, found) for grade_id, found in by_id.items()]


def _task(grade_id: str, cells: list[CellScore]) -> Task:
    scores = [cell.score for cell in cells if cell.score is not None]
    most = cells[-1].max_score
    share = sum(scores) / (most * len(scores)) if scores and most else None
    full = sum(score >= most for score in scores)
    return Task(grade_id, most, share, full, sum(score == 0 for score in scores), len(cells) - len(scores))


def _failures(noted: Iterable[Entry]) -> list[Failure]:
    """Return what several students ran into, the most frequent first, and last what nobody wrote."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for entry in noted:
        for cell in entry.result.cells if entry.result.status == "graded" else ():
            if cell.status in ("failed", "partial", "not run") and cell.message:
                found[cell.grade_id, _NUMBER.sub("…", cell.message)[:300]][entry.student] = cell.message
    failures = [
        Failure(grade_id, message, tuple(by_student), next(iter(by_student.values())))
        for (grade_id, message), by_student in found.items()
    ]
    return sorted(failures, key=lambda failure: (_unwritten(failure), -len(failure.students)))[:20]


def _unwritten(failure: Failure) -> bool:
    """Return whether these students wrote nothing, which would otherwise head the list once a task."""
    return all(part.endswith(("not written yet", "no answer")) for part in failure.message.split("; "))


def _flags(noted: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for entry in noted:
        for flag in entry.result.flags:
            kind, _, where = flag.partition(":")
            found[kind].append(f"{entry.student}: {where}" if where else entry.student)
    return {kind: tuple(who) for kind, who in sorted(found.items())}


def _by_score(report: ClassReport) -> dict[float, list[str]]:
    found: dict[float, list[str]] = defaultdict(list)
    for student, score in report.scores.items():
        found[score].append(student)
    return found


def _cell(value: object) -> str:
    """Return a value as text that a spreadsheet takes for text: messages hold what students wrote."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return shielded(text) if isinstance(value, str) else text
