"""When a submission was handed in: nbgrader's timestamp.txt beside it. Without one it counts as on time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.journal import open_to_read

if TYPE_CHECKING:
    from coursekit.grading.collect import Entry

_NAME = "timestamp.txt"


def stamp(folder: Path, moment: datetime) -> None:
    """Note `moment`, in UTC, as the time at which what lies in a student's folder was handed in."""
    forget(folder)  # whatever it is: what is written is a file of ours
    (folder / _NAME).write_text(f"{moment:%Y-%m-%d %H:%M:%S} UTC\n")


def forget(folder: Path) -> None:
    """Take the time away."""
    (folder / _NAME).unlink(missing_ok=True)


def is_stamped(folder: Path) -> bool:
    """Return whether a time is noted."""
    return (folder / _NAME).is_file() and not (folder / _NAME).is_symlink()


def unstamped(course: Course, assignment: str) -> list[str]:
    """Return the students whose submission has no time."""
    return [s for s in course.students(assignment) if not is_stamped(course.submitted(s, assignment))]


def deadline(course: Course, assignment: str) -> datetime | None:
    """Return an assignment's deadline in UTC, without loading nbgrader; None where there is none."""
    if not course.gradebook.is_file():
        return None
    with closing(open_to_read(course.gradebook)) as connection:
        found = connection.execute("SELECT duedate FROM assignment WHERE name = ?", [assignment]).fetchone()
    return datetime.fromisoformat(found[0]).replace(tzinfo=UTC) if found and found[0] else None


def may_be_late(course: Course, assignment: str, entries: Sequence[Entry]) -> list[str]:
    """Return the students whose submission came in late, for all that is known, and has no time to say so.

    Those that Canvas marks as late; once the deadline is past, also what is new or changed and not of Canvas.
    """
    due = deadline(course, assignment)
    past = due is not None and datetime.now(UTC) > due
    late = [
        entry.student
        for entry in entries
        if entry.outcome != "refused"
        and (entry.late or (past and entry.late is None and entry.outcome != "unchanged"))
    ]
    return [student for student in late if not is_stamped(course.submitted(student, assignment))]


def note_time(course: Course, assignment: str, *, students: Collection[str], moment: datetime) -> None:
    """Note when students handed in what lies there; it counts when they are graded the next time.

    Raises: InputError if one of them has no submission; then nothing is noted.
    """
    known = set(course.students(assignment))
    if missing := [student for student in students if student not in known]:
        names = ", ".join(map(repr, missing))
        raise InputError(f"no submission to {assignment}", got=names, fix="nothing was noted")
    for student in students:
        folder = course.submitted(student, assignment)
        if not (folder.is_symlink() or folder.parent.is_symlink()):  # what is a link is refused by intake
            stamp(folder, moment)
