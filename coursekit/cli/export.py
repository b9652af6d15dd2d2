"""The `coursekit export` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    destination: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    format: Annotated[str, typer.Option(help="csv, canvas or moodle.")] = "csv",
    course: Annotated[Path, typer.Option(help="The course folder.")] = Path("."),
    assignment: Annotated[list[str] | None, typer.Option(help="Only this exercise; again for more.")] = None,
    student: Annotated[list[str] | None, typer.Option(help="Only this student; again for more.")] = None,
) -> None:
    """Write the grades as CSV, for people or in the columns that Canvas or Moodle import."""
    from coursekit.grading.course import Course
    from coursekit.grading.export import export_grades
    from coursekit.grading.status import course_status

    folder = Course.open(course)
    sheet = export_grades(
        folder, destination, format=format, assignments=assignment or (), students=student or ()
    )
    typer.echo(f"{len(sheet.grades)} grades of {len(sheet.students)} students in {destination}")
    if withheld := sheet.withheld():
        left = "marked" if format == "csv" else "left out"
        more = f" and {len(withheld) - 5} more" if len(withheld) > 5 else ""
        typer.echo(
            f"{len(withheld)} are {left}, as answers wait for a person: {', '.join(withheld[:5])}{more}",
            err=True,
        )
    for state in course_status(folder):
        if state.to_grade and state.name in sheet.assignments:
            typer.echo(
                f"{state.to_grade} submissions to {state.name} are new or changed, or were graded with "
                f"an older exercise: coursekit grade {state.name}",
                err=True,
            )
