"""Recorded answers to an exercise, right and wrong, and the points they must get."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.errors import InputError, require
from coursekit.notebooks.forbidden import is_solution_code
from coursekit.notebooks.scoring import grading_words
from coursekit.notebooks.source import at

if TYPE_CHECKING:
    from nbformat import NotebookNode

_CELL = re.compile(r"""^# ?%% .*grade_id=["'](\w+)["']""")
_SCORES = re.compile(r"^#\s*scores:\s*(\{.*\})", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """An answer file: what is wrong with it, the points of the test cells it loses, and its cells by
    grade_id.
    """

    path: Path
    description: str
    scores: dict[str, float]
    cells: dict[str, str]


def read_answer(path: Path | str) -> Answer:
    """Return the answer that a file `tests/exercises/<slug>/<name>.py` describes.

    Raises: InputError naming file and line if the docstring, the line `# scores: {...}` or the cells are
        missing.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if _CELL.match(line)]
    odd = [n + 1 for n, line in enumerate(lines) if re.match(r"^# ?%%", line) and n not in starts]
    if odd or not starts:
        raise at(path, (odd or [1])[0], "a cell without a name", expected='# %% grade_id="name"')
    head = "\n".join(lines[: starts[0]])
    description = ast.get_docstring(ast.parse(head))
    if not description:
        raise at(path, 1, "no docstring", expected="one sentence that says what is wrong with this answer")
    ends = [*starts[1:], len(lines)]
    cells = {
        _CELL.match(lines[start])[1]: "\n".join(lines[start + 1 : end]).strip("\n")  # type: ignore[index]
        for start, end in zip(starts, ends, strict=True)
    }
    return Answer(path, description, _scores(head, path), cells)


def with_answers(notebook: NotebookNode, cells: Mapping[str, str]) -> NotebookNode:
    """Return a copy of a notebook whose solution cells named in `cells` (grade_id to source) are replaced.

    Raises: InputError for a grade_id that is no solution cell of the notebook.
    """
    copy = deepcopy(notebook)
    solutions = {grading_words(cell)["grade_id"]: cell for cell in copy.cells if is_solution_code(cell)}
    for grade_id, source in cells.items():
        if grade_id not in solutions:
            raise InputError(
                f"no solution cell {grade_id!r}", expected=f"one of {sorted(solutions)}", got=grade_id
            )
        solutions[grade_id].source = source
    return copy


def expected_scores(answer: Answer, full: Mapping[str, float]) -> dict[str, float]:
    """Return the points that the answer must get in each auto-graded cell.

    `full` maps the auto-graded cells to their points; cells that the answer's header does not name keep them.

    Raises: InputError if the header names a cell that is not there, or more points than it has.
    """
    for grade_id, points in answer.scores.items():
        if grade_id not in full or not 0 <= points <= full[grade_id]:
            raise at(answer.path, 1, "scores of no such test", expected=dict(full), got={grade_id: points})
    return {**full, **answer.scores}


def _scores(head: str, path: Path) -> dict[str, float]:
    found = _SCORES.search(head)
    if not found:
        raise at(path, 1, "no line with scores", expected="# scores: {test_name: 0}")
    yaml = require("yaml", extra="notebooks")
    scores = yaml.safe_load(found[1])
    if not all(isinstance(points, int | float) for points in scores.values()):
        raise at(path, 1, "scores are no numbers", got=scores)
    return scores
