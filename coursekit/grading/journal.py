"""The journal: which submission was graded from which bytes. A table in the gradebook's own SQLite file.

It lies there so that a grade and the note that it was given are written in one transaction. Reading it needs
nothing but the standard library: a run with nothing to do loads neither nbgrader nor a kernel client.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coursekit.grading.report import Result, total
from coursekit.notebooks.scoring import CellScore

# What grading itself would score differently from now on gets a new number here: old grades are then stale.
PIPELINE = "6"

CREATE = (
    "CREATE TABLE IF NOT EXISTS coursekit_journal (assignment TEXT NOT NULL, student TEXT NOT NULL, "
    "submission TEXT NOT NULL, version TEXT NOT NULL, result TEXT NOT NULL, "
    "graded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (assignment, student))",
    "CREATE TABLE IF NOT EXISTS coursekit_exercise (assignment TEXT PRIMARY KEY, version TEXT NOT NULL)",
    # nbgrader looks these up without an index: each time a walk through the whole class.
    "CREATE INDEX IF NOT EXISTS coursekit_grade_notebook ON grade (notebook_id)",
    "CREATE INDEX IF NOT EXISTS coursekit_comment_notebook ON comment (notebook_id)",
    "CREATE INDEX IF NOT EXISTS coursekit_notebook_submission ON submitted_notebook (assignment_id)",
    # What a regrade replaces is kept, in the same transaction: who lost or gained points can be told later.
    "CREATE TABLE IF NOT EXISTS coursekit_history (assignment TEXT NOT NULL, student TEXT NOT NULL, "
    "submission TEXT NOT NULL, version TEXT NOT NULL, result TEXT NOT NULL, graded_at TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS coursekit_history_who ON coursekit_history (assignment, student)",
    "CREATE TRIGGER IF NOT EXISTS coursekit_keep BEFORE INSERT ON coursekit_journal BEGIN "
    "INSERT INTO coursekit_history SELECT assignment, student, submission, version, result, graded_at "
    "FROM coursekit_journal WHERE assignment = NEW.assignment AND student = NEW.student; END",
)
STAMP = "INSERT OR REPLACE INTO coursekit_exercise (assignment, version) VALUES (:assignment, :version)"
UPSERT = (
    "INSERT OR REPLACE INTO coursekit_journal (assignment, student, submission, version, result) "
    "VALUES (:assignment, :student, :submission, :version, :result)"
)

_GRADES = """
FROM grade
JOIN base_cell ON base_cell.id = grade.cell_id
JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id
JOIN submitted_assignment ON submitted_assignment.id = submitted_notebook.assignment_id
JOIN assignment ON assignment.id = submitted_assignment.assignment_id
WHERE assignment.name = ?
"""
_BY_HAND = (
    "SELECT submitted_assignment.student_id, base_cell.name, "
    "grade.manual_score, grade.extra_credit, grade.needs_manual_grade"
    f"{_GRADES} AND (grade.manual_score IS NOT NULL OR grade.extra_credit IS NOT NULL)"
)
_WAITING = f"SELECT submitted_assignment.student_id, base_cell.name{_GRADES} AND grade.needs_manual_grade = 1"
# Flag of a hand-graded answer whose text is no longer the one that was graded.
CHANGED = "answer_changed_after_grading"


@dataclass(frozen=True)
class HandGrade:
    """What a person gave for a cell, and whether the cell waits to be looked at again."""

    manual: float | None = None
    extra: float = 0.0
    waits: bool = False


HandGrades = dict[tuple[str, str], HandGrade]


def open_to_read(gradebook: Path) -> sqlite3.Connection:
    """Return a connection that changes no grade.

    Not SQLite's mode=ro: where a run was killed in the middle of a transaction, whoever reads next has to
    undo its half, and mode=ro refuses that ("attempt to write a readonly database").
    """
    connection = sqlite3.connect(f"{gradebook.as_uri()}?mode=rw", uri=True)
    connection.execute("PRAGMA query_only = ON")
    return connection


def row(assignment: str, result: Result, *, submission: str, version: str) -> dict[str, Any]:
    """Return the parameters of UPSERT for a graded submission."""
    return {
        "assignment": assignment,
        "student": result.student,
        "submission": submission,
        "version": version,
        "result": json.dumps(result.to_dict()),
    }


def read(gradebook: Path, assignment: str) -> dict[str, tuple[str, str, Result]]:
    """Return student -> (hash of the submission, version of the exercise, result) of earlier runs."""
    rows = _query(gradebook, "coursekit_journal", _JOURNAL, assignment)
    return {
        student: (submission, version, Result.from_dict(json.loads(result)))
        for student, submission, version, result in rows
    }


def stamped_version(gradebook: Path, assignment: str) -> str | None:
    """Return the version of the exercise that the gradebook's cells come from, or None."""
    query = "SELECT version FROM coursekit_exercise WHERE assignment = ?"
    rows = _query(gradebook, "coursekit_exercise", query, assignment)
    return rows[0][0] if rows else None


def waiting(gradebook: Path, assignment: str, *, student: str | None = None) -> set[tuple[str, str]]:
    """Return (student, grade_id) of the cells that wait for a person, as the formgrader counts them.

    Of one student if one is named: what is asked for each submission must not read the whole class.
    """
    return set(_query(gradebook, "grade", *_of(student, _WAITING, assignment)))


def by_hand(gradebook: Path, assignment: str, *, student: str | None = None) -> HandGrades:
    """Return (student, grade_id) -> what a person gave, where a person gave something; of one if named."""
    rows = _query(gradebook, "grade", *_of(student, _BY_HAND, assignment))
    return {
        (student, cell): HandGrade(manual, extra or 0.0, bool(waits))
        for student, cell, manual, extra, waits in rows
    }


def with_hand_grades(result: Result, hand: HandGrades) -> Result:
    """Return the result with a person's scores in place of ours, as the gradebook counts them."""
    if result.status == "failed":
        return result
    given = {cell.grade_id: hand.get((result.student, cell.grade_id), HandGrade()) for cell in result.cells}
    cells = tuple(_by_hand(cell, given[cell.grade_id]) for cell in result.cells)
    # The flag has done its work once a person has graded the new text.
    done = {f"{CHANGED}:{grade_id}" for grade_id, grade in given.items() if not grade.waits}
    flags = tuple(flag for flag in result.flags if flag not in done)
    return replace(result, cells=cells, score=total(cells)[0], flags=flags)


def _by_hand(cell: CellScore, grade: HandGrade) -> CellScore:
    if grade.manual is not None:
        message = "graded by hand" + (", to be looked at again" if grade.waits else "")
        return replace(cell, score=grade.manual + grade.extra, status="manual", message=message)
    return replace(cell, score=(cell.score or 0.0) + grade.extra) if grade.extra else cell


_JOURNAL = "SELECT student, submission, version, result FROM coursekit_journal WHERE assignment = ?"


def _of(student: str | None, query: str, assignment: str) -> list[str]:
    """Return the query and what it needs, cut down to one student if one is named."""
    if student is None:
        return [query, assignment]
    return [f"{query} AND submitted_assignment.student_id = ?", assignment, student]


def _query(gradebook: Path, table: str, query: str, *values: str) -> list[tuple]:
    if not gradebook.is_file():
        return []
    with closing(open_to_read(gradebook)) as connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone()
        return connection.execute(query, values).fetchall() if there else []
