"""nbgrader preprocessors that make `nbgrader autograde` fair and closed where it is not by itself.

They stand in the `nbgrader_config.py` that `coursekit course init` writes; `coursekit grade` has stages of
its own.
"""

from __future__ import annotations

from typing import Any

from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade

from coursekit.notebooks.forbidden import block_forbidden
from coursekit.notebooks.scoring import score_cell


class BlockForbidden(NbGraderPreprocessor):
    """Makes solution cells that use a forbidden import raise a message that names it; before Execute."""

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the notebook with such cells replaced."""
        return block_forbidden(nb)[0], resources


class FailClosed(NbGraderPreprocessor):
    """Leaves in each test cell what nbgrader will count as exactly the points it earned; after Execute.

    nbgrader takes a cell that never ran, and one that ends with something that is no number, for full marks,
    a warning on stderr for none, and more points than there are for a reason to stop.
    """

    def preprocess_cell(self, cell: Any, resources: dict, cell_index: int) -> tuple[Any, dict]:
        """Return the cell with an error or a number in its outputs that nbgrader cannot misread."""
        if cell.cell_type != "code" or not is_grade(cell):
            return cell, resources
        score = score_cell(cell)
        if score.score is None:
            return cell, resources
        kept = [o for o in cell.outputs if o.output_type != "execute_result" and o.get("name") != "stderr"]
        if not score.score and not any(output.output_type == "error" for output in kept):
            kept.append(new_output("error", ename="Failed", evalue=score.message, traceback=[score.message]))
        elif 0 < score.score < score.max_score:
            kept.append(
                new_output("execute_result", data={"text/plain": f"{score.score}"}, execution_count=1)
            )
        cell.outputs = kept
        return cell, resources
