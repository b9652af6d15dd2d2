"""Feedback: what a student may see of the graded notebook, as nbgrader's HTML page."""

from __future__ import annotations

import base64
import html
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook
from nbgrader.converters import GenerateFeedback
from nbgrader.preprocessors import ClearHiddenTests, GetGrades, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution, is_task

from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.late import renew_penalty
from coursekit.grading.nbgrader_tools import Conversion
from coursekit.grading.record import replace_text

# HTML, JavaScript and SVG of a student's could run in the instructor's browser; text and pixels cannot.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_SCRIPT_LINK = re.compile(r"((?:java|vb)script)\s*:", re.IGNORECASE)
_PIXELS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}


class HideHiddenTests(NbGraderPreprocessor):
    """Takes hidden tests and their outputs out of a graded notebook, and what could run in a browser."""

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the notebook with hidden tests cut to a line and their points, and all else to text."""
        clear = ClearHiddenTests(parent=self)
        _mark_unread(nb, resources["nbgrader"])
        for cell in nb.cells:
            removed = cell.cell_type == "code" and clear._remove_hidden_test_region(cell)
            if cell.cell_type == "code" and not isinstance(cell.execution_count, int):
                cell.execution_count = None  # the kernel says it, and the template writes it as it is
            if removed and is_grade(cell):
                cell.outputs = [_points(cell)]
            elif cell.cell_type == "code":
                cell.outputs = [plain for output in cell.outputs for plain in _plain(output)]
            elif is_solution(cell):
                cell.source = _TAG.sub("&lt;", _SCRIPT_LINK.sub(r"\1 :", cell.source))
        return nb, resources


class FeedbackPages(GenerateFeedback):
    """nbgrader's converter, which keeps what is the same for all when it is started for another student.

    To compile its templates takes longer than a page; to open the gradebook once more nearly so.

    gradebook: nbgrader's, open, to read points and comments from; opened for each page if None.
    """

    gradebook: Gradebook | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        theirs = (
            GetGrades,
            f"nbgrader.preprocessors.{GetGrades.__name__}",
            f"{__name__}.{GetGradesOfNow.__name__}",
        )
        self.preprocessors = [PutGrades if each in theirs else each for each in self.preprocessors]

    def start(self) -> None:
        """Write the pages of the folder's present student."""
        if not self.trait_has_value("exporter"):
            return super().start()
        self.init_notebooks()
        with chdir(self.coursedir.root):
            self.convert_notebooks()


class GetGradesOfNow(GetGrades):
    """nbgrader's preprocessor, after lateness is reckoned of the points of now: the formgrader does not."""

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the notebook with points, comments and penalty in its metadata."""
        words = resources["nbgrader"]
        with Gradebook(words["db_url"]) as book:
            renew_penalty(book, self.config, words["assignment"], student=words["student"])
            book.db.commit()
        return super().preprocess(nb, resources)


class PutGrades(GetGradesOfNow):
    """nbgrader's preprocessor that puts points and comments into a notebook, with an open gradebook."""

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the notebook with points and comments in its cells' metadata."""
        book = self.parent.parent.gradebook  # of the exporter's converter
        if book is None:
            return super().preprocess(nb, resources)
        words = resources["nbgrader"]
        graded = book.find_submission_notebook(words["notebook"], words["assignment"], words["student"])
        grades = {grade.name: grade for grade in graded.grades}
        comments = {comment.name: comment.comment for comment in graded.comments}
        for cell in nb.cells:
            about = cell.metadata.get("nbgrader", {})
            if is_solution(cell) or is_task(cell):
                about["comment"] = comments[about["grade_id"]]
            if is_grade(cell) or is_task(cell):
                grade = grades[about["grade_id"]]
                about |= {"score": grade.score, "points": grade.max_score}
        penalty = graded.late_submission_penalty or 0
        words |= {"score": graded.score - penalty, "max_score": graded.max_score, "late_penalty": penalty}
        return nb, resources


def feedback_pages(course: Course, assignment: str, *, gradebook: Gradebook | None = None) -> Conversion:
    """Return what `write_feedback` uses, for pages of many students; `gradebook` is nbgrader's, if open."""
    pages = Conversion(FeedbackPages, course, assignment)
    pages.app.gradebook = gradebook
    return pages


def write_feedback(course: Course, assignment: str, *, student: str, pages: Conversion | None = None) -> None:
    """Write the student's page from the autograded notebook, as `nbgrader generate_feedback` does.

    Args:
        course: the course folder.
        assignment: the exercise's slug.
        student: whose page.
        pages: what `feedback_pages` made for this assignment; made anew if None.
    """
    (pages or feedback_pages(course, assignment)).run(student)


def write_rejection(course: Course, assignment: str, *, student: str, reason: str) -> None:
    """Write a page that says why the submission was not graded."""
    title = html.escape(f"{assignment}: not graded")
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>\n'
        f"<body><h1>{title}</h1>\n<p>Student: {html.escape(student)}</p>\n<p>{html.escape(reason)}</p>\n"
        "<p>Submit the notebook again; what counts is the last submission.</p></body></html>\n"
    )
    replace_text(course.feedback(student, assignment), page)


def _mark_unread(nb: Any, words: dict) -> None:
    """Say of answers that wait for a person, and above them all, that their points are not final."""
    from nbformat.v4 import new_markdown_cell

    gradebook = Path(words["db_url"].removeprefix("sqlite:///"))
    waiting = journal.waiting(gradebook, words["assignment"], student=words["student"])
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


def _plain(output: Any) -> list[Any]:
    """Return an output made anew of its text and pixels: a forged one may hold anything anywhere."""
    from nbformat.v4 import new_output

    if output.output_type == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return [new_output("stream", name=name, text=_text(output.get("text")))]
    if output.output_type == "error":
        words = {key: _text(output.get(key)) for key in ("ename", "evalue")}
        lines = [_text(line) for line in output.get("traceback") or ()]
        return [new_output("error", **words, traceback=lines)]
    data = output.get("data", {})
    shown = {kind: data[kind] for kind in _PIXELS if _is_picture(data.get(kind), _PIXELS[kind])}
    if "text/plain" in data:
        shown["text/plain"] = _text(data["text/plain"])
    return [new_output("display_data", data=shown)] if shown else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_picture(encoded: Any, first_bytes: bytes) -> bool:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True).startswith(first_bytes)
    except (AttributeError, ValueError):
        return False
