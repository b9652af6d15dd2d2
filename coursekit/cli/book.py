"""The `coursekit book` commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Build the book, and the tables that are made from the map.")

_Book = Annotated[Path, typer.Option(help="Folder of the book's sources.")]
_Output = Annotated[Path, typer.Option(help="Folder for everything that is made; the site is html/ in it.")]


@app.command()
def build(
    *,
    book: _Book = Path("book"),
    output: _Output = Path("build/book"),
    page: Annotated[
        list[str] | None, typer.Option(help="Preview with only this page run (part/slug).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Pages that run at the same time.")] = 2,
    solutions: Annotated[bool, typer.Option(help="Show solutions behind a click, or leave them out.")] = True,
    builder: Annotated[str, typer.Option(help="Sphinx builder: html, or gettext for translators.")] = "html",
) -> None:
    """Run the pages whose cells or imports changed, then build the site.

    COURSE_SOLUTIONS=0 in the environment leaves solutions out as well.
    """
    from coursekit.notebooks.book import build_book

    solutions = solutions and os.environ.get("COURSE_SOLUTIONS", "1") != "0"
    site = build_book(
        book,
        output,
        names=page or (),
        workers=workers,
        solutions=solutions,
        builder=builder,
        report=typer.echo,
    )
    typer.echo(f"The book is in {site}/index.html" if builder == "html" else f"Written to {site}")


@app.command("map")
def write_map(
    *,
    root: Annotated[Path, typer.Option(help="The checkout, with course.yml in it.")] = Path("."),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a table is stale.")] = False,
) -> None:
    """Make README's table and exercises/README.md from course.yml."""
    from coursekit.notebooks import course_map

    stale = course_map.write_map(root, check=check)
    for path in stale:
        typer.echo(f"{'stale' if check else 'wrote'} {path}")
    if stale and check:
        typer.echo("run: coursekit book map", err=True)
        raise typer.Exit(1)
