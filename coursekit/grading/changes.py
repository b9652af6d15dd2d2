"""Changes: whose score is another one since they were graded before, and why.

The journal holds the grade that counts; what it replaced is in its history, in the same SQLite file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.report import Result

_COLUMNS = "student, submission, version, result, graded_at"
_NOW = f"SELECT {_COLUMNS} FROM coursekit_journal WHERE assignment = ? ORDER BY student"
_BEFORE = (
    f"SELECT {_COLUMNS} FROM coursekit_history WHERE rowid IN "
    "(SELECT max(rowid) FROM coursekit_history WHERE assignment = ? GROUP BY student)"
)


@dataclass(frozen=True)
class Entry:
    """A grade as it was noted: when, from which submission and which version of the exercise."""

    student: str
    submission: str
    version: str
    result: Result
    graded_at: str


@dataclass(frozen=True)
class Change:
    """A student's score before and now, the cells that make the difference, and why.

    cells: grade_id -> (points before, points now), for cells whose points differ; None is not graded.
    why: what differs of submission, exercise and pipeline.
    """

    student: str
    before: float
    now: float
    cells: dict[str, tuple[float | None, float | None]]
    why: str


def entries(course: Course, assignment: str) -> dict[str, Entry]:
    """Return student -> the grade that counts, with a person's points in place of ours."""
    return _read(course, assignment, "coursekit_journal", _NOW)


def replaced_entries(course: Course, assignment: str) -> dict[str, Entry]:
    """Return student -> the grade before the one that counts, where there was one."""
    return _read(course, assignment, "coursekit_history", _BEFORE)


def find_changes(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[Change]:
    """Return the students who have other points now than before, in the order of `now`.

    A person's points count on both sides, so that they are no change.
    """
    pairs = [(before[student], entry) for student, entry in now.items() if student in before]
    return [change for pair in pairs if (change := _compare(*pair)).cells]


def _compare(before: Entry, now: Entry) -> Change:
    old, new = ({cell.grade_id: cell.score for cell in entry.result.cells} for entry in (before, now))
    cells = {
        grade_id: (old.get(grade_id), new.get(grade_id))
        for grade_id in dict.fromkeys([*new, *old])
        if (old.get(grade_id) or 0) != (new.get(grade_id) or 0)
    }
    return Change(now.student, before.result.score or 0.0, now.result.score or 0.0, cells, _why(before, now))


def _why(before: Entry, now: Entry) -> str:
    """Return in words what differs of that which a grade depends on."""
    (old_pipeline, _, old_source), (new_pipeline, _, new_source) = (
        entry.version.partition(":") for entry in (before, now)
    )
    reasons = [
        ("another submission", before.submission != now.submission),
        ("the exercise changed", old_source != new_source),
        ("coursekit grades differently", old_pipeline != new_pipeline),
    ]
    told = [reason for reason, applies in reasons if applies]
    return ", ".join(told) or "graded again, nothing changed: the answer is not deterministic"


def _read(course: Course, assignment: str, table: str, query: str) -> dict[str, Entry]:
    if not course.gradebook.is_file():
        return {}
    with closing(journal.open_to_read(course.gradebook)) as connection:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone()
        rows = connection.execute(query, [assignment]).fetchall() if there else []
    hand = journal.by_hand(course.gradebook, assignment)
    found = (
        Entry(*ids, journal.with_hand_grades(Result.from_dict(json.loads(result)), hand), graded_at)
        for *ids, result, graded_at in rows
    )
    return {entry.student: entry for entry in found}
