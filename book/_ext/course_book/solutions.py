"""The reference solution of an exercise as MyST, without any hidden test."""

from __future__ import annotations

import re
from pathlib import Path

from coursekit.notebooks.source import SOLUTION, SourceCell, read_source, regions

_MARKER = re.compile(r"^\s*#*\s*(BEGIN|END) SOLUTION\s*$")
# Longer than any fence that a model answer can hold.
_FENCE = "``````"


def solution_page(source: Path) -> list[str]:
    """Return the lines of the solution: the cells as the reference fills them, and the model answers."""
    lines: list[str] = []
    for cell in read_source(source).of_kind("solution", "answer"):
        lines += _code(cell) if cell.kind == "solution" else _answer(cell)
    return lines


def _code(cell: SourceCell) -> list[str]:
    code = [line for line in cell.source.split("\n") if not _MARKER.match(line)]
    return [f"{_FENCE}python", *code, _FENCE, ""]


def _answer(cell: SourceCell) -> list[str]:
    text = "\n".join(regions(cell.source, SOLUTION)).strip()
    return [f"**`{cell.grade_id}`**, model answer and rubric:", "", *text.split("\n"), ""]
