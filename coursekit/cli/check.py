"""The `coursekit check` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    notebook: Annotated[Path, typer.Argument(help="A learner's notebook, saved.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    cell_seconds: Annotated[float, typer.Option(min=1, help="Stop a cell after this many seconds.")] = 60.0,
) -> None:
    """Run a notebook's visible tests from the top: points so far, and a hint for what fails."""
    import json

    from coursekit.notebooks.learner import check_notebook

    report = check_notebook(notebook, cell_seconds=cell_seconds)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
    else:
        _print_table(report)
    raise typer.Exit(0 if report.passed else 1)


def _print_table(report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"passed": "green", "failed": "red", "partly": "yellow", "not run": "red"}
    table = Table(title=report.title, title_justify="left")
    for head in ("", "test", "points", "what to mend"):
        table.add_column(head, justify="right" if head == "points" else "left", overflow="fold")
    for mark, task, points, message in report.rows():
        table.add_row(Text(mark, style=colours.get(mark, "dim")), Text(task), Text(points), Text(message))
    console = Console()
    console.print(table)
    console.print(Text(report.summary, style="bold"))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"))
