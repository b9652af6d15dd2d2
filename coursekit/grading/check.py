"""Check: points from an executed notebook. What did not run, or was stopped while it ran, earns nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coursekit.errors import require
from coursekit.grading.run import CellState
from coursekit.notebooks.scoring import CellScore, score_cell


def score_cells(
    notebook: dict[str, Any], states: tuple[CellState, ...], *, unanswered: frozenset[str] = frozenset()
) -> list[CellScore]:
    """Return the points of each graded cell, in the notebook's order.

    Args:
        notebook: the executed notebook.
        states: what became of each of its cells.
        unanswered: grade_ids that the student left as released; there is nothing in them to grade by hand.
    """
    cells = require("nbformat", extra="grading").from_dict(notebook).cells
    pairs = [(cell, state) for cell, state in zip(cells, states, strict=True) if _is_graded(cell)]
    return [_closed(score_cell(cell), state, unanswered) for cell, state in pairs]


def unscored(template: dict[str, Any], message: str) -> list[CellScore]:
    """Return 0 points for each graded cell of a notebook that was not run at all."""
    words = [cell["metadata"]["nbgrader"] for cell in template["cells"] if _is_graded(cell)]
    return [CellScore(word["grade_id"], 0, word["points"], "not run", message) for word in words]


def _closed(score: CellScore, state: CellState, unanswered: frozenset[str]) -> CellScore:
    """Return the score, or 0 where there is no sign that the cell ran to its end."""
    if score.status == "manual":
        none = score.grade_id in unanswered
        return replace(score, score=0, status="failed", message="no answer") if none else score
    if state not in ("ok", "error") and score.score:
        return replace(score, score=0, status="failed", message=f"the cell did not finish ({state})")
    return score


def _is_graded(cell: dict[str, Any]) -> bool:
    return bool(cell["metadata"].get("nbgrader", {}).get("grade"))
