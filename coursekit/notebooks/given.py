"""Which cells of a learner's notebook were given: grading runs those, the answers, and what answers need."""

from __future__ import annotations

import hashlib
import re
from copy import deepcopy
from typing import TYPE_CHECKING

from coursekit.notebooks.forbidden import ADDED
from coursekit.notebooks.needed import Kind, find_needs
from coursekit.notebooks.scoring import grading_words

if TYPE_CHECKING:
    from nbformat import NotebookNode

RELEASED = "released"
"""Key in the `coursekit` metadata of a code cell that nbgrader does not mark: its source's checksum."""


_BUILT_ID = re.compile(r"cell-\d{2,}")


def source_checksum(source: str) -> str:
    """Return the checksum that the release notes for an unmarked code cell.

    >>> source_checksum("launch(hello, 2)") == source_checksum("  launch(hello, 2) ")
    True
    """
    return hashlib.md5(source.strip().encode(), usedforsecurity=False).hexdigest()


def without_scratch_cells(notebook: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """Return a copy without the code cells that no answer needs, and notes on what will be missed.

    A learner may add cells to try things out. Grading runs those that an answer needs and no others, so the
    check does too.
    """
    copy, notes = deepcopy(notebook), []
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    needs = find_needs([(_kind(cell), cell.source) for cell in code])
    scratch = {id(cell) for n, cell in enumerate(code) if is_added(cell) and n not in needs.cells}
    for number in needs.cells:
        code[number].metadata.setdefault("coursekit", {})[ADDED] = f"added-{number}"
    copy.cells = [cell for cell in copy.cells if id(cell) not in scratch]
    if needs.from_tests:
        names = ", ".join(sorted(needs.from_tests))
        notes.append(
            f"{names}: an answer uses it, and only a test cell defines it; grading runs the tests elsewhere, "
            "so define it in the answer's cell"
        )
    if any(map(is_edited, copy.cells)):
        notes.append(
            "you changed an example cell; grading runs the original, so no answer may need the change"
        )
    return copy, notes


def _kind(cell: NotebookNode) -> Kind:
    words = grading_words(cell)
    if is_added(cell):
        return "added"
    return "answer" if words.get("solution") else "test" if words.get("grade") else "given"


def is_added(cell: NotebookNode) -> bool:
    """Return whether a code cell is neither one of nbgrader's nor an example that came with the notebook."""
    marked = grading_words(cell) or _released(cell) is not None
    # A notebook released before cells were marked is told by the ids that `build` gives by position.
    return cell.cell_type == "code" and not marked and not _BUILT_ID.fullmatch(cell.get("id", ""))


def is_edited(cell: NotebookNode) -> bool:
    """Return whether an example cell is no longer what came with the notebook."""
    return _released(cell) not in (None, source_checksum(cell.source))


def _released(cell: NotebookNode) -> str | None:
    return cell.metadata.get("coursekit", {}).get(RELEASED)
