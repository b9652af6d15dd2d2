"""Points of an executed notebook. The learner's check and the grading use this same code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from coursekit.notebooks.wrong import is_unwritten

if TYPE_CHECKING:
    from nbformat import NotebookNode

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r"Cell In\[(\d+)\],? line (\d+)")
# numpy 2 and torch write a number as np.float64(1.5) and tensor(1.5000).
_WRAPPED = re.compile(r"^(?:np\.\w+|tensor)\(([^(),]+)(?:,[^()]*)?\)$")


@dataclass(frozen=True)
class CellScore:
    """What one graded cell earned.

    score: points, or None where a person decides. status: "passed", "partial", "failed", "not run" or
        "manual".
    message: the sentence a learner reads; "" when passed.
    """

    grade_id: str
    score: float | None
    max_score: float
    status: str
    message: str = ""
    hidden: bool = False


def score_notebook(notebook: NotebookNode) -> list[CellScore]:
    """Return the score of every graded cell of an executed notebook, in order."""
    cells = {cell.execution_count: name_of(cell) for cell in notebook.cells if cell.get("execution_count")}
    return [score_cell(cell, cells) for cell in notebook.cells if grading_words(cell).get("grade")]


def score_cell(cell: NotebookNode, cells: Mapping[int, str] = MappingProxyType({})) -> CellScore:
    """Return what a graded cell earned by its outputs.

    An error earns 0; so does a cell that never ran. What is printed, on stderr too, costs nothing. A
    number as the cell's last expression is its points, clipped to [0, max]. Another value there is
    refused: it could be anything, and the contract lets a test cell end with a number or with nothing.

    `cells` maps execution counts to names of the notebook's cells, for saying where an error arose.
    """
    words = grading_words(cell)
    most = words["points"]
    hidden = is_hidden(cell)
    if words.get("solution") or cell.cell_type != "code":
        return CellScore(words["grade_id"], None, most, "manual", hidden=hidden)
    score, status, message = _outcome(cell, most, cells)
    return CellScore(words["grade_id"], score, most, status, message, hidden)


def name_of(cell: NotebookNode) -> str:
    """Return what a learner is told a cell is called: its grade_id, or "" for a cell without."""
    return str(grading_words(cell).get("grade_id", ""))


def is_hidden(cell: NotebookNode) -> bool:
    """Return whether this cell's tests are kept from the learner."""
    return bool(cell.metadata.get("coursekit", {}).get("hidden"))


def grading_words(cell: NotebookNode) -> dict[str, Any]:
    """Return nbgrader's metadata of a cell, empty where it has none."""
    return cell.metadata.get("nbgrader", {})


def error_message(output: NotebookNode, cells: Mapping[int, str] = MappingProxyType({})) -> str:
    """Return what a learner should read of an error output: the sentence of a test, or the error and its
    place.
    """
    name, text = output.ename, _ANSI.sub("", str(output.evalue)).strip()
    if is_unwritten(name, text):
        return "not written yet"
    if name in ("WrongAnswer", "StoppedError") or (name == "AssertionError" and text):
        return text
    if name in ("CellTimeoutError", "KeyboardInterrupt"):
        return "took too long and was stopped"
    said = f"{name}: {text.splitlines()[0]}" if text else name
    places = _PLACE.findall(_ANSI.sub("", "\n".join(output.get("traceback", []))))
    # The innermost line of the learner's own code: frames of libraries show a file, not "Cell In".
    inner = [(cells[int(n)], line) for n, line in places if cells.get(int(n))]
    return f"{said} (line {inner[-1][1]} of cell {inner[-1][0]})" if inner else said


def _outcome(cell: NotebookNode, most: float, cells: Mapping[int, str]) -> tuple[float, str, str]:
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors:
        return 0, "failed", error_message(errors[0], cells)
    if cell.execution_count is None:
        return 0, "not run", "this test did not run: the notebook stopped before it"
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    if not results:
        return most, "passed", ""
    points = _as_number(results[-1])
    if points is None:
        return 0, "failed", "the test ended with a value that is no number of points"
    points = min(max(points, 0), most)
    missed = [line for line in _printed(cell).split("\n") if line.startswith("missed ")]
    status = "passed" if points == most else "partial" if points else "failed"
    return points, status, "" if status == "passed" else "; ".join(missed) or f"{points:g} of {most:g} points"


def _as_number(output: NotebookNode) -> float | None:
    text = output.get("data", {}).get("text/plain", "")
    text = "".join(text) if isinstance(text, list) else text
    wrapped = _WRAPPED.match(text.strip())
    try:
        number = float(wrapped[1] if wrapped else text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number == int(number) else number


def _printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")
