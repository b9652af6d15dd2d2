"""What a person sees of grading once it is done: tables, and lines below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.grading.create import LATE_RULE
from coursekit.grading.intake import shown_name
from coursekit.grading.people import label
from coursekit.grading.report import Result

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from coursekit.grading.changes import Change
    from coursekit.grading.collect import Entry
    from coursekit.grading.feedback_zip import Packed
    from coursekit.grading.late import Lateness
    from coursekit.grading.roster import Student
    from coursekit.grading.sample import Outcome
    from coursekit.grading.status import AssignmentStatus


def print_table(assignment: str, results: Sequence[Result], *, waiting: int) -> None:
    """Print a line a submission: score, status, seconds, and what an instructor may want to look at.

    waiting: how many answers of these students wait for a person.
    """
    heads = ("student", "score", "of", "status", "seconds", "note")
    rows = [
        (r.student, _points(r.score), _points(r.max_score), r.status, f"{r.seconds:.1f}", ", ".join(r.flags))
        for r in results
    ]
    _print_table(f"{assignment}: scores", heads, rows)
    by_status: dict[str, list[str]] = {}
    for result in results:
        by_status.setdefault(result.status, []).append(result.student)
    counts = [f"{len(students)} {status}" for status, students in by_status.items()]
    _say(f"{len(results)} submissions: {', '.join(counts) or 'none'}")
    for status in sorted(by_status.keys() - {"graded"}):
        _say(f"{status}: {', '.join(by_status[status])}")
    if waiting:
        wait = "answer waits" if waiting == 1 else "answers wait"
        _say(f"{waiting} {wait} for a person: coursekit course answers, or Formgrader in JupyterLab")


_FREE_TEXT = ("note", "handed in", "cells", "why")
# More names than a person reads at once.
_MOST_NAMES = 40


def print_entries(assignment: str, entries: Sequence[Entry], *, without: Sequence[Student] = ()) -> None:
    """Print what of an archive wants a person's eye, by reason; who is missing; how much was taken in.

    without: students of the roster who have no submission.
    """
    reasons: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.reason:
            kind = "refused" if entry.outcome == "refused" else "taken in"
            reasons.setdefault(f"{kind}: {entry.reason}", []).append(entry)
    for reason, those in reasons.items():
        _say(reason)
        for entry in those:
            _say(f"    {entry.student}  {entry.name}" if entry.student else f"    {entry.name}")
    if any(entry.outcome == "refused" for entry in entries):
        _say(f"what belongs in after all: put it at submitted/STUDENT/{assignment}/{assignment}.ipynb")
    if without:
        _say(f"no submission of {len(without)} on the roster: {_some([label(each) for each in without])}")
    counts = Counter(entry.outcome for entry in entries)
    taken = counts["collected"] + counts["updated"] + counts["unchanged"]
    kinds = f"{counts['collected']} new, {counts['updated']} changed, {counts['unchanged']} as before"
    _say(f"{assignment}: {taken} taken in ({kinds}), {counts['refused']} refused")


def print_may_be_late(students: Sequence[str]) -> None:
    """Print whose submission counts as on time for want of a time, and what to do about it."""
    if students:
        _say(
            f"WARNING: {len(students)} marked as late, or new or changed after the deadline, COUNT AS ON TIME"
            f", as it is not known when they were handed in: {_some(students)}"
        )
        _say("    say it with coursekit course late --student WHO --handed-in TIME, then grade")


def print_unstamped(students: Sequence[str], *, of: int) -> None:
    """Print how many submissions have no time."""
    if students:
        _say(f"{len(students)} of {of} submissions have no time of handing in, and count as on time")


def print_packed(destination: Path, packed: Packed) -> None:
    """Print how many pages are in a zip for the LMS, and whose are not, by reason."""
    size = destination.stat().st_size / 2**20
    _say(f"{len(packed.students)} feedback pages in {destination} ({size:.1f} MiB)")
    for reason, students in packed.left_out.items():
        _say(f"NOT IN IT are {len(students)}, {reason}: {_some(students)}")


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def _say(text: str) -> None:
    """Print a line in which nothing is a command to the terminal, and which the terminal breaks itself."""
    _console().print(shown_name(text), soft_wrap=True, markup=False, highlight=False)


def print_changes(assignment: str, changes: Sequence[Change]) -> None:
    """Print a line for each student whose points changed: before, now, in which cells, and why."""
    if not changes:
        _say(f"{assignment}: nobody's points are others than when they were graded before")
        return
    heads = ("student", "before", "now", "cells", "why")
    rows = [(c.student, _points(c.before), _points(c.now), _cells(c), c.why) for c in changes]
    _print_table(f"{assignment}: changed scores", heads, rows)


def _cells(change: Change) -> str:
    return ", ".join(f"{name} {_points(old)} to {_points(new)}" for name, (old, new) in change.cells.items())


def print_late(assignment: str, due: datetime | None, late: Sequence[Lateness], *, to_grade: int) -> None:
    """Print the deadline, and a line for each student who is late or has an extension.

    to_grade: how many submissions are not graded as they lie there; when they were handed in is not read yet.
    """
    if due is None:
        _say(f"{assignment} has no deadline: --due sets one")
        return
    rows = [
        (
            one.student,
            f"{one.handed_in:%Y-%m-%d %H:%M}" if one.handed_in else "-",
            f"{due + one.extension:%Y-%m-%d %H:%M}" if one.extension else "-",
            _hours(one.seconds_late) if one.seconds_late else "no",
            f"-{_points(round(one.penalty, 2))}" if one.penalty else "0",
        )
        for one in late
    ]
    if rows:
        _print_table(
            f"{assignment}: late", ("student", "handed in (UTC)", "extended to", "late by", "points"), rows
        )
    _say(f"{assignment} is due {due.astimezone():%Y-%m-%d %H:%M %Z} ({due:%Y-%m-%d %H:%M} UTC)")
    if to_grade:
        _say(
            f"not known yet of {to_grade} to be graded: whether they are late (coursekit grade {assignment})"
        )
    if any(one.seconds_late for one in late) and not any(one.penalty for one in late):
        _say("late work costs nothing: nbgrader_config.py has no rule. For ten percent a day begun, it needs")
        for line in LATE_RULE:
            _say(f"    {line}")


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"


def print_status(states: Sequence[AssignmentStatus]) -> None:
    """Print a line an assignment."""
    heads = ("exercise", "submitted", "graded", "rejected", "to grade", "to read")
    rows = [
        (
            s.name if s.released else f"{s.name} (not released)",
            *(s.submitted, s.graded, s.rejected, s.to_grade, s.waiting),
        )
        for s in states
    ]
    _print_table("course", heads, rows)
    if any(s.waiting for s in states):
        _say("to read: answers that wait for a person (coursekit course answers)")


def print_sample(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Print the sample class: what each handed in, its score, the known score, and where to look."""
    rows = []
    for outcome in outcomes:
        result = outcome.result
        score = f"{_points(result.score)} of {_points(result.max_score)}"
        known = _expected(outcome) + ("" if outcome.as_expected else " !")
        rows.append((outcome.student, outcome.assignment, outcome.what, score, known, result.status))
    _print_table("sample class", ("student", "exercise", "handed in", "score", "known", "status"), rows)
    right = sum(outcome.as_expected for outcome in outcomes)
    _console().print(f"{right} of {len(outcomes)} scores are the known ones, point by point")
    _print_waiting([outcome.result for outcome in outcomes])
    _console().print(
        f"feedback: {folder / 'feedback'}   gradebook: {folder / 'gradebook.db'}", soft_wrap=True
    )


def _print_waiting(results: Sequence[Result]) -> None:
    if waiting := sum(cell.score is None for result in results for cell in result.cells):
        text = f"{waiting} written answers count 0 until a person grades them (coursekit course answers)"
        _console().print(text, soft_wrap=True)


def _expected(outcome: Outcome) -> str:
    return "0" if outcome.expected is None else _points(sum(outcome.expected.values()))


def _points(points: float | None) -> str:
    return "-" if points is None else f"{points:g}"


def _print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    table = Table(title=title, box=SIMPLE_HEAD)
    for head in heads:
        # A narrow terminal breaks words rather than hides them; on a wide one only free text is broken.
        table.add_column(head, overflow="fold", no_wrap=console.width >= 80 and head not in _FREE_TEXT)
    for row in rows:
        # Names and messages are students': a terminal must not take them for commands.
        table.add_row(*(escape(shown_name(str(value))) for value in row))
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    return Console()
