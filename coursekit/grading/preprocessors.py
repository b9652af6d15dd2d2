"""nbgrader preprocessors that make `nbgrader autograde` fair and closed where it is not by itself.

They stand in the `nbgrader_config.py` that `coursekit course init` writes; `coursekit grade` has stages of
its own.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade
from traitlets import Bool, Integer
from traitlets.log import get_logger

from coursekit.grading.course import Course
from coursekit.grading.intake import RejectedError, parse_answers, read_submission
from coursekit.grading.rebuild import rebuild
from coursekit.grading.run import Job, Limits, run_notebook
from coursekit.grading.sandbox.probe import sandbox_for
from coursekit.grading.template import load_template, sibling_files
from coursekit.notebooks.forbidden import block_forbidden
from coursekit.notebooks.scoring import score_cell


def leave_out_what_is_rejected(*, assignment: str, student: str, notebooks: list[str]) -> None:
    """Take the notebooks of a submission that intake rejects out of nbgrader's list, before it opens one.

    nbgrader waits for ever on a FIFO, and follows a link to another's work or to the solution. The others
    are graded; of this one it says that it found no notebooks, below our reason.
    """
    for path in {Path(name).absolute().parent for name in notebooks}:
        course, who = Course(path.parents[2]), path.parent.name
        try:
            parse_answers(read_submission(course, path.name, student=who).data)
        except RejectedError as error:
            get_logger().error("%s: rejected: %s", who, error)
            notebooks.clear()


class RebuildSubmission(NbGraderPreprocessor):
    """Replaces a submission by the released notebook with the student's answers; before everything else.

    nbgrader stops the whole batch at one duplicated cell, and keeps what a student wrote between the cells.
    """

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the rebuilt notebook."""
        words = resources["nbgrader"]
        course = _course(resources)
        template = load_template(course, words["assignment"])
        rebuilt = rebuild(template, parse_answers(json.dumps(nb).encode()))
        for flag in rebuilt.flags:
            self.log.warning("%s: %s", words["student"], flag)
        return nbformat.from_dict(rebuilt.notebook), resources


class BlockForbidden(NbGraderPreprocessor):
    """Makes solution cells that use a forbidden import raise a message that names it."""

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the notebook with such cells replaced."""
        return block_forbidden(nb)[0], resources


class RunNotebook(NbGraderPreprocessor):
    """Runs the notebook as `coursekit grade` does. nbgrader's Execute gives up on a kernel that dies."""

    timeout = Integer(60, help="Seconds that one cell may run.").tag(config=True)
    tests_in_place = Bool(False, help="Run tests in the student's kernel, unprotected.").tag(config=True)
    allow_unsandboxed = Bool(False, help="Go on where the machine refuses a sandbox.").tag(config=True)

    def preprocess(self, nb: Any, resources: dict) -> tuple[Any, dict]:
        """Return the executed notebook."""
        limits = Limits(cell_seconds=self.timeout, notebook_seconds=10 * self.timeout)
        course, assignment = _course(resources), resources["nbgrader"]["assignment"]
        template = load_template(course, assignment)
        job = Job(
            json.dumps(nb).encode(),
            sibling_files(course, assignment),
            limits,
            student_names=template.student_names,
            hidden_tests=template.hidden_tests,
            tests_in_place=self.tests_in_place,
            sandbox=sandbox_for(nb, limits.notebook_seconds, allow_unsandboxed=self.allow_unsandboxed),
        )
        # In a thread: the formgrader's button calls this from inside a running event loop.
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(run_notebook, job).result()
        return nbformat.reads(run.notebook.decode(), as_version=4), resources


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


def _course(resources: dict) -> Course:
    return Course(Path(resources["nbgrader"]["db_url"].removeprefix("sqlite:///")).parent)
