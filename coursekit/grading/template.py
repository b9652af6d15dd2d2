"""The template of an assignment: the released notebook with the gradebook's cells, hidden tests and all."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from typing import Any

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.journal import PIPELINE, open_to_read
from coursekit.grading.rebuild import Template, grade_id_of, is_solution
from coursekit.notebooks.cell_names import solution_names

_SOURCES = """
SELECT source_cell.name, source_cell.source, source_cell.cell_type FROM source_cell
JOIN notebook ON notebook.id = source_cell.notebook_id
JOIN assignment ON assignment.id = notebook.assignment_id
WHERE assignment.name = ? AND notebook.name = ?
"""


def exercise_version(course: Course, assignment: str) -> str:
    """Return what a grade depends on from the instructor's side: "pipeline:hash of the source folder"."""
    digest = hashlib.sha256()
    for path in sorted(course.source(assignment).parent.rglob("*")):
        if path.is_file() and ".ipynb_checkpoints" not in path.parts:
            digest.update(f"{path.relative_to(course.root)}\n{path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    return f"{PIPELINE}:{digest.hexdigest()}"


def load_template(course: Course, assignment: str) -> Template:
    """Return the template: cells in the release's order, test cells as the gradebook knows them.

    The gradebook's copy is what stock nbgrader overwrites locked cells with, so both score the same tests.
    Raises: InputError if release and gradebook do not belong together.
    """
    notebook = json.loads(course.release(assignment).read_bytes())
    full = _gradebook_cells(course, assignment)
    released: dict[str, str] = {}
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        grade_id = grade_id_of(cell)
        if grade_id is None:
            continue
        if grade_id not in full:
            raise InputError(
                f"release/{assignment} holds a cell that the gradebook does not know",
                got=grade_id,
                fix=f"run: nbgrader generate_assignment {assignment} --force",
            )
        released[grade_id] = cell["source"]
        cell["source"] = full[grade_id]
    return Template(_bare(notebook), released, solution_names(_solutions(course, assignment, notebook)))


def sibling_files(course: Course, assignment: str) -> dict[str, bytes]:
    """Return the data files that the instructor put beside the source notebook, by relative name."""
    folder = course.source(assignment).parent
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".ipynb")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _gradebook_cells(course: Course, assignment: str) -> dict[str, str]:
    with closing(open_to_read(course.gradebook)) as connection:
        rows = connection.execute(_SOURCES, [assignment, assignment]).fetchall()
    return {name: source for name, source, _ in rows}


def _solutions(course: Course, assignment: str, released: dict[str, Any]) -> list[str]:
    """Return the text of the solution cells, as released and, where the source is there, as answered."""
    path = course.source(assignment)
    source = json.loads(path.read_bytes()) if path.is_file() else {"cells": []}
    return [
        "".join(cell["source"])
        for cell in [*released["cells"], *source["cells"]]
        if cell["cell_type"] == "code" and is_solution(cell)
    ]


def _bare(notebook: dict[str, Any]) -> dict[str, Any]:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook
