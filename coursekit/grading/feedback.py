"""Feedback: what a student may see of the graded notebook, as nbgrader's HTML page."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from nbgrader.preprocessors import ClearHiddenTests, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution

from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.nbgrader_tools import generate_feedback
from coursekit.grading.record import replace_text

# HTML, JavaScript and SVG of a student's could run in the instructor's browser; text and pixels cannot.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_SCRIPT_LINK = re.compile(r"((?:java|vb)script)\s*:", re.IGNORECASE)
SHOWN = ("text/plain", "image/png", "image/jpeg")


class HideHiddenTests(NbGraderPreprocessor):
    """Takes hidden tests and their outputs out of a graded notebook, and what could run in a browser."""

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the notebook with hidden tests cut to a line and their points, and all else to text."""
        clear = ClearHiddenTests(parent=self)
        _mark_unread(nb, resources["nbgrader"])
        for cell in nb.cells:
            removed = cell.cell_type == "code" and clear._remove_hidden_test_region(cell)
            if removed and is_grade(cell):
                cell.outputs = [_points(cell)]
            elif cell.cell_type == "code":
                cell.outputs = [_plain(output) for output in cell.outputs]
            elif is_solution(cell):
                cell.source = _TAG.sub("&lt;", _SCRIPT_LINK.sub(r"\1 :", cell.source))
        return nb, resources


def write_feedback(course: Course, assignment: str, *, student: str) -> None:
    """Write the student's page from the autograded notebook and the gradebook."""
    generate_feedback(course, assignment, student=student)


def write_rejection(course: Course, assignment: str, *, student: str, reason: str) -> None:
    """Write a page that says why the submission was not graded."""
    title = html.escape(f"{assignment}: not graded")
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body><h1>{title}</h1>\n<p>{html.escape(reason)}</p>\n"
        "<p>Submit the notebook again; what counts is the last submission.</p></body></html>\n"
    )
    replace_text(course.feedback(student, assignment), page)


def _mark_unread(nb: Any, words: dict) -> None:
    """Say of answers that wait for a person, and above them all, that their points are not final."""
    from nbformat.v4 import new_markdown_cell

    gradebook = Path(words["db_url"].removeprefix("sqlite:///"))
    waiting = journal.waiting(gradebook, words["assignment"])
    unread = [
        cell
        for cell in nb.cells
        if is_solution(cell) and (words["student"], cell.metadata.nbgrader.grade_id) in waiting
    ]
    for cell in unread:
        mark = "**Not read yet**" if cell.cell_type == "markdown" else "# Not read yet"
        cell.source = f"{mark}\n\n{cell.source}"
    if unread:
        note = new_markdown_cell(f"**The score is not final: {len(unread)} of your answers not read yet.**")
        if nb.nbformat_minor < 5:  # before 4.5 a cell has no id
            note.pop("id")
        nb.cells.insert(0, note)


def _points(cell: Any) -> Any:
    from nbformat.v4 import new_output

    words = cell.metadata.nbgrader
    score = (
        "not graded" if words.get("score") is None else f"{words['score']:g} of {words['points']:g} points"
    )
    return new_output("stream", name="stdout", text=f"hidden tests: {score}\n")


def _plain(output: Any) -> Any:
    if "data" in output:
        output.data = {kind: value for kind, value in output.data.items() if kind in SHOWN}
    return output
