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


@app.command()
def check(
    slugs: Slugs = None,
    source: Source = Path("solutions"),
    release: Release = Path("exercises"),
    course_file: CourseFile = Path("course.yml"),
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Search this folder or archive for leaks as well.", show_default=False),
    ] = None,
) -> None:
    """Find what gives an answer away, what breaks the contract of test cells, and notebooks that are
    stale.
    """
    from coursekit.errors import InputError
    from coursekit.notebooks.build import build_exercise, find_sources
    from coursekit.notebooks.contract import contract_breaches
    from coursekit.notebooks.course_file import release_address
    from coursekit.notebooks.leaks import leaks_below
    from coursekit.notebooks.source import read_source

    sources = find_sources(source, slugs)
    repository, branch = release_address(course_file)
    problems: list[str] = []
    for path in sources:
        problems += [str(breach) for breach in contract_breaches(read_source(path))]
        changed = build_exercise(
            path, solutions=source, exercises=release, repository=repository, branch=branch, write=False
        )
        stale = [notebook for notebook in changed if notebook.is_relative_to(release)]
        problems += [f"{notebook}: stale; run: coursekit notebooks build" for notebook in stale]
    known = {path.stem for path in find_sources(source)}
    orphans = [notebook for notebook in sorted(release.glob("*/*.ipynb")) if notebook.stem not in known]
    problems += [f"{notebook}: has no source in {source}; delete it" for notebook in orphans]
    if missing := [str(folder) for folder in also or [] if not folder.exists()]:
        raise InputError(
            "nothing to search for leaks", expected="a folder or archive", got=", ".join(missing)
        )
    # Leaks are searched for by every source: one exercise's notebook may give another's answer away.
    for folder in [release, *(also or [])]:
        problems += [f"{folder}: {leak}" for leak in leaks_below(folder, find_sources(source))]
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(sources)} exercises checked, {len(problems)} problems")
    raise typer.Exit(1 if problems else 0)


@app.command()
def copy(
    work: Annotated[Path, typer.Argument(help="The learner's folder.")] = Path("work"),
    slugs: Annotated[list[str] | None, typer.Option("--exercise", help="Only this one; repeatable.")] = None,
    release: Release = Path("exercises"),
) -> None:
    """Copy the exercises into a folder to work in; never overwrites work, offers new versions beside it."""
    from coursekit.notebooks.copies import copy_exercises

    for copied in copy_exercises(release, work, slugs=slugs):
        typer.echo(str(copied))
