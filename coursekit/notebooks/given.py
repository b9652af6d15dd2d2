"""Which cells of a learner's notebook were given: grading runs those, with the answers, and no others."""

from __future__ import annotations

import hashlib
import re
from copy import deepcopy
from typing import TYPE_CHECKING

from coursekit.notebooks.forbidden import bound_names, parse_cell
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


def without_added_cells(notebook: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """Return a copy without the code cells that the learner added, and notes on what will be missed.

    A learner may add cells to try things out. Grading leaves them out, so the check does too; otherwise an
    answer that needs a function from such a cell would pass here and fail there.
    """
    copy, notes = deepcopy(notebook), []
    copy.cells = [cell for cell in notebook.cells if not is_added(cell)]
    lost = {name for cell in filter(is_added, notebook.cells) for name in _names(cell.source)}
    kept = {name for cell in copy.cells if cell.cell_type == "code" for name in _names(cell.source)}
    if lost - kept:
        names = ", ".join(sorted(lost - kept))
        notes.append(
            f"{names}: defined in a cell that you added; grading runs the given cells only, so if an "
            "answer needs it, move it into an answer's cell"
        )
    if any(map(is_edited, copy.cells)):
        notes.append(
            "you changed an example cell; grading runs the original, so no answer may need the change"
        )
    return copy, notes


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


def _names(source: str) -> set[str]:
    tree = parse_cell(source)
    return bound_names(tree) - {"check"} if tree else set()
