"""What happens to notebooks on their way: each function makes a mishap of the bytes of a good submission."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

Cells = list[dict[str, Any]]


def not_a_notebook(data: bytes) -> bytes:
    """Return the start of a PDF file."""
    return b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + data[:200]


def cut_short(data: bytes) -> bytes:
    """Return the first half: an upload that broke off."""
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    """Return nothing."""
    return b""


def duplicated_cells(data: bytes) -> bytes:
    """Return the notebook with each solution cell twice, the copy below untouched by its author since."""
    return _edit(
        data, lambda cells: [copy.deepcopy(cell) for cell in cells for _ in range(1 + _solution(cell))]
    )


def deleted_tests(data: bytes) -> bytes:
    """Return the notebook without its test cells."""
    return _edit(data, lambda cells: [cell for cell in cells if not _test(cell)])


def deleted_solutions(data: bytes) -> bytes:
    """Return the notebook without its solution cells: only what was given is left."""
    return _edit(data, lambda cells: [cell for cell in cells if not _solution(cell)])


def reordered_cells(data: bytes) -> bytes:
    """Return the notebook upside down."""
    return _edit(data, lambda cells: cells[::-1])


def changed_tests(data: bytes) -> bytes:
    """Return the notebook with every test cell emptied to `pass`."""
    return _edit(data, lambda cells: [{**cell, "source": "pass"} if _test(cell) else cell for cell in cells])


def changed_points(data: bytes) -> bytes:
    """Return the notebook whose metadata promise a hundred points a test."""
    return _edit(data, lambda cells: [_with_points(cell) for cell in cells])


def hard_exit(data: bytes) -> bytes:
    """Return the notebook whose first solution cell ends the process."""
    return _edit(data, _exit_in_first)


MISHAPS: dict[str, Callable[[bytes], bytes]] = {
    function.__name__: function
    for function in (
        not_a_notebook,
        cut_short,
        empty,
        duplicated_cells,
        deleted_tests,
        deleted_solutions,
        reordered_cells,
        changed_tests,
        changed_points,
        hard_exit,
    )
}


def _edit(data: bytes, change: Callable[[Cells], Cells]) -> bytes:
    notebook = json.loads(data)
    notebook["cells"] = change(notebook["cells"])
    return json.dumps(notebook).encode()


def _words(cell: dict[str, Any]) -> dict[str, Any]:
    return cell["metadata"].get("nbgrader", {})


def _solution(cell: dict[str, Any]) -> bool:
    return bool(_words(cell).get("solution")) and cell["cell_type"] == "code"


def _test(cell: dict[str, Any]) -> bool:
    return bool(_words(cell).get("grade")) and cell["cell_type"] == "code"


def _with_points(cell: dict[str, Any]) -> dict[str, Any]:
    cell = copy.deepcopy(cell)
    if _test(cell):
        cell["metadata"]["nbgrader"]["points"] = 100
    return cell


def _exit_in_first(cells: Cells) -> Cells:
    first = next(cell for cell in cells if _solution(cell))
    return [{**cell, "source": "import os\nos._exit(1)"} if cell is first else cell for cell in cells]
