"""The reference solution of an exercise as MyST, without any hidden test."""

from __future__ import annotations

import re
from pathlib import Path

from coursekit.notebooks.source import SOLUTION, SourceCell, read_source, regions

_MARKER = re.compile(r"^\s*#*\s*(BEGIN|END) SOLUTION\s*$")
# Longer than any fence that a model answer can hold.
_FENCE = "``````"
_FENCE_LINE = re.compile(r"^\s*(`{3,}|~{3,})")
# After any indent, list or quote markers.
_PER_CENT = re.compile(r"^(\s*(?:(?:[-*+>]|\d+[.)])\s+)*)%")


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
    return [f"**`{cell.grade_id}`**, model answer and rubric:", "", *_keep_per_cent(text.split("\n")), ""]


def _keep_per_cent(lines: list[str]) -> list[str]:
    """Return the lines so that none is lost: at the start of a line, MyST takes "%" for a comment.

    Jupyter shows such a line, so it gets a backslash, except in code and in display mathematics.
    """
    kept, fence, math = [], "", False
    for line in lines:
        found = _FENCE_LINE.match(line)
        if found and (not fence or found[1].startswith(fence)):
            fence = "" if fence else found[1]
        verbatim = bool(fence or found or math)
        if not fence and line.count("$$") % 2:
            math = not math
        kept.append(line if verbatim else _PER_CENT.sub(r"\1\\%", line))
    return kept
