"""Backups of the gradebook: a copy before each run that writes, the last ones kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from coursekit.grading.course import Course
from coursekit.grading.journal import open_to_read

KEPT = 10


def back_up(course: Course, *, kept: int = KEPT) -> Path | None:
    """Copy the gradebook into backups/ and return the copy; None if there is no gradebook yet.

    SQLite's own backup: whole even while the formgrader writes. To go back, stop everything that uses the
    course and put the copy in the place of `gradebook.db`.

    Args:
        course: the course folder.
        kept: how many copies stay; older ones are removed.
    """
    if not course.gradebook.is_file():
        return None
    folder = course.root / "backups"
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    copy = folder / f"gradebook-{now:%Y%m%dT%H%M%S}.{now.microsecond:06d}Z.db"
    partial = copy.with_suffix(".part")
    with closing(open_to_read(course.gradebook)) as source, closing(sqlite3.connect(partial)) as target:
        source.backup(target)
    partial.replace(copy)
    for old in backups(course)[:-kept]:
        old.unlink()
    return copy


def backups(course: Course) -> list[Path]:
    """Return the copies that are there, oldest first."""
    return sorted((course.root / "backups").glob("gradebook-*.db"))
