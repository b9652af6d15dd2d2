"""The command line. Each command imports what it needs inside its own function, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer

from coursekit.cli import book, check, course, doctor, export, grade, notebooks, plan, release
from coursekit.errors import CoursekitError

app = typer.Typer(
    name="coursekit",
    help="Build, check, release and grade the exercises of the course.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(notebooks.app, name="notebooks")
app.add_typer(book.app, name="book")
app.add_typer(course.app, name="course")
app.command("check")(check.check)
app.command("doctor")(doctor.doctor)
app.command("release")(release.release)
app.command("grade")(grade.grade)
app.command("export")(export.export)
app.command("plan")(plan.plan)


def main() -> None:
    """Run the command line; an error of ours, or of a file, is one sentence on stderr, not a traceback."""
    try:
        app()
    except CoursekitError as error:
        print(f"coursekit: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # not of a file that somebody named
            raise
        print(f"coursekit: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
