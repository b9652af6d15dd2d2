"""The `coursekit release` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def release(
    destination: Annotated[
        Path, typer.Argument(help="Folder to make; with --zip, the archive's name less .zip.")
    ],
    archive: Annotated[bool, typer.Option("--zip", help="Write an archive, not a folder.")] = False,
    root: Annotated[Path, typer.Option(help="The checkout with solutions.")] = Path(),
) -> None:
    """Make what learners get: exercises, package and environment, without solutions; refuses if any
    would leak.
    """
    from coursekit.notebooks.release import make_release

    typer.echo(f"wrote {make_release(root, destination, archive=archive)}")
