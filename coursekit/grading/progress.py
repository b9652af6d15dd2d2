"""How far grading is, on stderr: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta

from coursekit.grading.course import Course
from coursekit.grading.intake import shown_name
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.report import Result

LINE_SECONDS = 30.0


def grade_with_progress(course: Course, assignment: str, *, options: Options) -> list[Result]:
    """Grade an assignment, tell on stderr how far that is, and return the results."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    last = 0.0  # when the last result came, in seconds since the start

    def left(task: Task) -> str:
        return _time_left(task.elapsed, done=task.completed, remaining=task.remaining, last=last)

    class TimeLeft(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"left about {left(task)}")

    course.require(assignment)  # before the bar is drawn: an error is then the only thing on the screen
    students = list(dict.fromkeys(options.students)) or course.students(assignment)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeft())
    console = Console(stderr=True)
    what = f"grading {assignment}"
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(what, total=len(students))
        (bar,), todo = progress.tasks, dict.fromkeys(students)

        def advance(result: Result, kept: bool) -> None:
            nonlocal last, what
            del todo[result.student]
            if not kept:
                last = bar.elapsed
            # What took this run no time says nothing about the time that it still takes.
            total = bar.total - kept
            earlier = f" ({len(students) - total:g} graded before)" if total < len(students) else ""
            # They are begun in order: the first one without a result is the one that is waited for.
            now = f": {shown_name(next(iter(todo)))}" if todo else ""
            what = f"grading {assignment}{earlier}{now}"
            # At once: the bar is drawn by a thread of its own.
            progress.update(bar.id, total=total, advance=not kept, description=escape(what))

        def line() -> str:
            return f"{what} {bar.completed:g}/{bar.total:g} left about {left(bar)}"

        with _said_now_and_then(line) if progress.disable else nullcontext():
            return grade_assignment(course, assignment, options=options, on_result=advance)


@contextmanager
def _said_now_and_then(line: Callable[[], str]) -> Iterator[None]:
    """Write a line to stderr every LINE_SECONDS: who grades into a file sees that something happens."""
    over = threading.Event()

    def say() -> None:
        while not over.wait(LINE_SECONDS):
            with suppress(OSError):  # nobody reads it any more: no reason to stop grading
                print(line(), file=sys.stderr, flush=True)

    speaker = threading.Thread(target=say, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        over.set()
        speaker.join()


def _time_left(elapsed: float, *, done: float, remaining: float, last: float) -> str:
    """Return H:MM:SS by the pace of the whole run, but no less than since the last result.

    The pace of the last half minute is that of one endless loop; the last submission may be one.

    >>> _time_left(30, done=10, remaining=290, last=29), _time_left(90, done=299, remaining=1, last=30)
    ('0:14:30', '0:01:00')
    """
    if not done:
        return "-:--:--"
    seconds = max(elapsed / done * remaining, elapsed - last) if remaining else 0.0
    return str(timedelta(seconds=round(seconds)))
