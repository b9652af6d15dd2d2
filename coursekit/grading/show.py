"""What a person sees of grading: progress while it runs, a table at its end."""

from __future__ import annotations

from collections.abc import Sequence

from coursekit.grading.course import Course
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.report import Result


def grade_with_progress(course: Course, assignment: str, *, options: Options) -> list[Result]:
    """Grade an assignment under a progress bar on stderr and return the results."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        total = len(options.students) or len(course.students(assignment))
        task = progress.add_task(f"grading {assignment}", total=total)

        def advance(result: Result, kept: bool) -> None:
            progress.update(task, advance=1, description=f"grading {assignment}: {result.student}")

        return grade_assignment(course, assignment, options=options, on_result=advance)


def print_table(assignment: str, results: Sequence[Result]) -> None:
    """Print a line a submission: score, status, seconds, and what an instructor may want to look at."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("student", "score", "of", "status", "seconds", "note", title=f"{assignment}: scores")
    for column in (1, 2, 4):
        table.columns[column].justify = "right"
    for result in results:
        score = "-" if result.score is None else f"{result.score:g}"
        most = "-" if result.max_score is None else f"{result.max_score:g}"
        note = escape(", ".join(result.flags))
        table.add_row(escape(result.student), score, most, result.status, f"{result.seconds:.1f}", note)
    console = Console()
    console.print(table)
    if waiting := sum(cell.score is None for result in results for cell in result.cells):
        console.print(f"{waiting} answers wait to be graded by hand: nbgrader formgrader, or the button in JupyterLab")
