"""The `coursekit notebooks` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Build exercise notebooks, check them, copy them for a learner.")

Slugs = Annotated[
    list[str] | None, typer.Argument(help="Exercises; all if none is named.", show_default=False)
]
Source = Annotated[Path, typer.Option(help="Folder of the sources and the instructor's notebooks.")]
Release = Annotated[Path, typer.Option(help="Folder of the learners' notebooks.")]
CourseFile = Annotated[Path, typer.Option(help="The course's map; says where Colab finds the release.")]


@app.command()
def build(
    slugs: Slugs = None,
    source: Source = Path("solutions"),
    release: Release = Path("exercises"),
    course_file: CourseFile = Path("course.yml"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a notebook would change.")
    ] = False,
) -> None:
    """Make the instructor's and the learner's notebook of each source; unchanged files are not touched."""
    from coursekit.notebooks.build import build_exercise, find_sources
    from coursekit.notebooks.course_file import release_address

    repository, branch = release_address(course_file)
    changed = 0
    for path in find_sources(source, slugs):
        paths = build_exercise(
            path, solutions=source, exercises=release, repository=repository, branch=branch, write=not check
        )
        if check:
            # The instructor's notebook is not committed; a clone without it is not stale.
            paths = [p for p in paths if p.is_relative_to(release)]
        for notebook in paths:
            typer.echo(f"{'would change' if check else 'wrote'} {notebook}")
        changed += len(paths)
    if not changed:
        typer.echo("every notebook is up to date")
    raise typer.Exit(1 if check and changed else 0)
