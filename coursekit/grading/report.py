"""What grading says: a score a cell, a status a submission, and the report as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coursekit.notebooks.scoring import CellScore

Status = Literal["graded", "rejected", "failed"]
CELL_KEYS = ("grade_id", "score", "max_score", "status", "message")


@dataclass(frozen=True)
class Result:
    """What became of one submission.

    score, max_score: points; score is None only if grading itself failed. A cell's score is None while a
    person has yet to grade it; it counts 0 until then.
    seconds: wall time of the run that gave the score, 0 if nothing was run.
    flags: what an instructor may want to look at, each "what" or "what:where".
    """

    student: str
    status: Status
    score: float | None
    max_score: float | None
    seconds: float
    flags: tuple[str, ...] = ()
    cells: tuple[CellScore, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as the JSON report holds it."""
        cells = [{key: getattr(cell, key) for key in CELL_KEYS} for cell in self.cells]
        return {**vars(self), "flags": list(self.flags), "cells": cells}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        """Return the result that `to_dict` wrote."""
        cells = tuple(CellScore(**cell) for cell in data["cells"])
        return cls(**{**data, "flags": tuple(data["flags"]), "cells": cells})


def total(cells: Sequence[CellScore]) -> tuple[float, float]:
    """Return (score, max_score) of the cells; what nobody has graded yet counts 0.

    >>> total([CellScore("a", 2, 3, "partial"), CellScore("b", None, 1, "manual")])
    (2, 4)
    """
    return sum(cell.score or 0 for cell in cells), sum(cell.max_score for cell in cells)


def to_json(assignment: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return the report of a run as plain data."""
    return {"assignment": assignment, "submissions": [result.to_dict() for result in results]}


def write_report(path: Path, assignment: str, *, results: Sequence[Result]) -> None:
    """Write the report to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    text = json.dumps(to_json(assignment, results), indent=1, ensure_ascii=False) + "\n"
    partial.write_text(text, "utf-8", errors="replace")  # a folder's name may hold bytes that are no text
    partial.replace(path)
