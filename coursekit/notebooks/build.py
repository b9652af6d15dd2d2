"""From the source of an exercise to the instructor's and the learner's notebook, the same bytes every
time.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coursekit.errors import InputError, require
from coursekit.notebooks.given import RELEASED, source_checksum
from coursekit.notebooks.source import ExerciseSource, SourceCell, read_source

if TYPE_CHECKING:
    from nbformat import NotebookNode

# GenerateAssignment's own list, less the three passes that need a course folder; a test holds the two equal.
RELEASE_PASSES = (
    "LockCells",
    "ClearSolutions",
    "ClearOutput",
    "CheckCellMetadata",
    "ComputeChecksums",
    "ClearHiddenTests",
    "ClearMarkScheme",
    "ComputeChecksums",
    "CheckCellMetadata",
)
INSTALL_ID = "install_coursekit"
_INSTALL = """\
# In Colab or Binder this installs the course's package; where it is there already, it does nothing.
import importlib.util

if importlib.util.find_spec("coursekit") is None:
    import subprocess, sys

    # --no-deps leaves the torch that came with the machine as it is; the rest is light.
    light = ["lazy_loader", "typer", "rich", "cloudpickle", "jaxtyping", "PyYAML", "nbformat", "nbclient"]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *light], check=True)
    subprocess.run([*pip, "--no-deps", "{address}"], check=True)
"""


def instructor_notebook(
    exercise: ExerciseSource, *, repository: str = "", branch: str = "main"
) -> NotebookNode:
    """Return the notebook with solutions and hidden tests, carrying nbgrader's metadata (schema 3).

    `repository` is the address of the public repository without solutions that Colab installs coursekit
    from, at `branch`; while it is "", the notebook has no installing cell.
    """
    nbformat = require("nbformat", extra="notebooks")
    cells = [_install_cell(repository, branch)] if repository else []
    cells += exercise.cells
    notebook = nbformat.v4.new_notebook(metadata=_notebook_metadata(exercise))
    notebook.cells = [_notebook_cell(cell, number) for number, cell in enumerate(cells)]
    return notebook


def student_notebook(instructor: NotebookNode) -> NotebookNode:
    """Return what nbgrader's generate_assignment releases of the instructor's notebook.

    The passes are nbgrader's own, so that solutions and hidden tests are cut by the code that grading trusts.
    """
    require("nbgrader", extra="grading")
    from nbgrader import preprocessors as passes

    quiet = logging.getLogger("coursekit.notebooks.build")
    notebook, resources = deepcopy(instructor), {}
    for name in RELEASE_PASSES:
        notebook, resources = getattr(passes, name)(enabled=True, log=quiet).preprocess(notebook, resources)
    return notebook


def notebook_text(notebook: NotebookNode) -> str:
    """Return the notebook as the text of its file: sorted keys, one final newline, no outputs expected."""
    nbformat = require("nbformat", extra="notebooks")
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def build_exercise(
    source: Path | str,
    *,
    solutions: Path | str,
    exercises: Path | str,
    repository: str = "",
    branch: str = "main",
    write: bool = True,
) -> list[Path]:
    """Write both notebooks of one source and return the paths whose bytes changed (or would, with
    write=False).
    """
    exercise = read_source(source)
    instructor = instructor_notebook(exercise, repository=repository, branch=branch)
    texts = {
        notebook_path(solutions, exercise.slug): notebook_text(instructor),
        notebook_path(exercises, exercise.slug): notebook_text(student_notebook(instructor)),
    }
    changed = [path for path, text in texts.items() if _read(path) != text]
    for path in changed if write else []:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[path], encoding="utf-8", newline="\n")
    return changed


def notebook_path(folder: Path | str, slug: str) -> Path:
    """Return where the notebook of a slug stands in `solutions`, `exercises` or a learner's folder."""
    return Path(folder) / slug / f"{slug}.ipynb"


def find_sources(folder: Path | str, slugs: list[str] | None = None) -> list[Path]:
    """Return the sources in a folder, all or those of the given slugs, sorted.

    Raises: InputError if a slug has no source.
    """
    found = {path.stem: path for path in sorted(Path(folder).glob("*.py"))}
    for slug in slugs or []:
        if slug not in found:
            raise InputError(
                f"no exercise {slug!r}", expected=f"one of {sorted(found)}", got=Path(folder) / f"{slug}.py"
            )
    return [found[slug] for slug in slugs] if slugs else list(found.values())


def _read(path: Path) -> str | None:
    return path.read_bytes().decode("utf-8") if path.is_file() else None


def _install_cell(repository: str, branch: str) -> SourceCell:
    address = f"{repository.rstrip('/')}/archive/{branch}.zip"
    return SourceCell("code", _INSTALL.replace("{address}", address).rstrip(), 1, "locked", INSTALL_ID)


def _notebook_metadata(exercise: ExerciseSource) -> dict[str, Any]:
    """Return fixed metadata: nothing of the machine that built the notebook."""
    course = {
        "slug": exercise.slug,
        "title": exercise.title,
        "forbidden": list(exercise.forbidden),
        # So that a learner's copy can be found to lack a cell, without the released notebook at hand.
        "cells": {cell.grade_id: cell.points or 0 for cell in exercise.cells if cell.kind},
    }
    return {
        "coursekit": {**course, **exercise.extra},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def _notebook_cell(cell: SourceCell, number: int) -> NotebookNode:
    nbformat = require("nbformat", extra="notebooks")
    metadata: dict[str, Any] = {"tags": list(cell.tags)} if cell.tags else {}
    if cell.kind:
        metadata["nbgrader"] = _nbgrader_metadata(cell)
    if cell.hidden:
        metadata["coursekit"] = {"hidden": True}
    if not cell.kind and cell.cell_type == "code":
        metadata["coursekit"] = {RELEASED: source_checksum(cell.source)}
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    # nbformat invents random ids; ours come from the source, so that building twice gives the same bytes.
    return make(source=cell.source, metadata=metadata, id=cell.grade_id or f"cell-{number:02d}")


def _nbgrader_metadata(cell: SourceCell) -> dict[str, Any]:
    graded = cell.kind in ("tests", "answer")
    metadata: dict[str, Any] = {
        "grade": graded,
        "grade_id": cell.grade_id,
        "locked": cell.kind in ("locked", "tests"),
        "schema_version": 3,
        "solution": cell.kind in ("solution", "answer"),
        "task": False,
    }
    return {**metadata, "points": cell.points} if graded else metadata
