"""What a cell of a graded notebook is, by nbgrader's words in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_test(cell: Mapping[str, Any]) -> bool:
    """Return whether a cell's outputs are points."""
    words = cell["metadata"].get("nbgrader", {})
    return cell["cell_type"] == "code" and bool(words.get("grade")) and not words.get("solution")


def is_locked(cell: Mapping[str, Any]) -> bool:
    """Return whether a code cell is the instructor's and no test: it runs on both sides."""
    words = cell["metadata"].get("nbgrader", {})
    plain = not words.get("grade") and not words.get("solution")
    return cell["cell_type"] == "code" and bool(words.get("locked")) and plain


def name_of(cell: Mapping[str, Any]) -> str | None:
    """Return a cell's grade_id, or None."""
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def text_of(cell: Mapping[str, Any]) -> str:
    """Return a cell's source, which a notebook's file may hold line by line."""
    return "".join(cell["source"])
