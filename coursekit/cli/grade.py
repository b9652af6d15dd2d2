"""The `coursekit grade` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def grade(
    assignment: Annotated[str, typer.Argument(help="Name of the exercise, as in source/.")],
    course: Annotated[Path, typer.Option(help="The course folder.")] = Path("."),
    student: Annotated[list[str] | None, typer.Option(help="Only this student; may be given again.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Notebooks whose cells run at the same time.")] = 2,
    report: Annotated[Path | None, typer.Option(help="Write the results here, as JSON.")] = None,
    force: Annotated[
        bool, typer.Option("--force", "--regrade", help="Grade unchanged submissions again.")
    ] = False,
    cell_seconds: Annotated[float, typer.Option(min=1, help="Longest time that one cell may run.")] = 60.0,
    allow_unsandboxed: Annotated[
        bool,
        typer.Option("--allow-unsandboxed", help="Go on where this machine does not keep code in its box."),
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Run the notebooks on the workers of this Dask scheduler, as tcp://HOST:PORT."),
    ] = None,
) -> None:
    """Grade the submissions to an exercise, and write scores, feedback and a report."""
    from coursekit.grading import journal
    from coursekit.grading.changes import entries, find_changes
    from coursekit.grading.course import Course
    from coursekit.grading.pipeline import Options
    from coursekit.grading.progress import grade_with_progress
    from coursekit.grading.report import write_report
    from coursekit.grading.run import Limits
    from coursekit.grading.sandbox.probe import probe
    from coursekit.grading.show import print_changes, print_table

    folder = Course.open(course)
    limits = Limits(cell_seconds=cell_seconds, notebook_seconds=10 * cell_seconds)
    options = Options(
        tuple(student or ()),
        workers,
        force,
        limits,
        allow_unsandboxed=allow_unsandboxed,
        scheduler=scheduler,
    )
    for note in probe().notes if scheduler is None else ():
        typer.echo(f"note: {note}", err=True)
    before = entries(folder, assignment)
    try:
        results = grade_with_progress(folder, assignment, options=options)
    except KeyboardInterrupt:
        typer.echo(_stopped(folder, assignment, options), err=True)
        raise typer.Exit(130) from None
    students = {result.student for result in results}
    waiting = sum(student in students for student, _ in journal.waiting(folder.gradebook, assignment))
    print_table(assignment, results, waiting=waiting)
    if changes := find_changes(before, entries(folder, assignment)):
        print_changes(assignment, changes)
    typer.echo(f"feedback: {folder.root / 'feedback'}   gradebook: {folder.gradebook}")
    if report:
        write_report(report, assignment, results=results)


def _stopped(course, assignment: str, options) -> str:
    """Return how far an interrupted run came."""
    from coursekit.grading.pipeline import unchanged

    if options.force:  # what was graded again cannot be told from what was graded before
        return "stopped; not all were graded again; run the same command to grade all of them anew"
    students = set(options.students) or set(course.students(assignment))
    graded = len(unchanged(course, assignment, students=students))
    return f"stopped; {graded} of {len(students)} graded; run the same command to go on"
