"""A notebook of locked, solution and test cells, run by the real pipeline stage."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from coursekit.grading.check import score_cells
from coursekit.grading.run import Job, Limits, run_notebook
from coursekit.notebooks.cell_names import solution_names

KINDS = {
    "locked": {"locked": True, "grade": False, "solution": False},
    "solution": {"locked": False, "grade": False, "solution": True},
    "test": {"locked": True, "grade": True, "solution": False, "points": 2},
}
SETUP = "from coursekit.notebooks import expect_close, expect_equal, points_for, probe"


class Checked:
    """What a run gave: scores and messages by grade_id, states in order, the executed cells."""

    def __init__(self, run) -> None:
        self.states = run.states
        self.cells = json.loads(run.notebook)["cells"]
        scores = score_cells({"cells": self.cells}, run.states)
        self.scores = {score.grade_id: score.score for score in scores}
        self.messages = {score.grade_id: score.message for score in scores}

    def outputs(self, grade_id):
        return next(cell["outputs"] for cell in self.cells if cell["id"] == grade_id)


def make_job(*cells, setup=SETUP, **options) -> Job:
    """A job of (kind, source) cells after the set-up; tests are called test_0, test_1, ... by position."""
    made = [
        {
            "cell_type": "code",
            "id": f"{kind}_{index}" if kind else f"free_{index}",
            "metadata": {"nbgrader": {**KINDS[kind], "grade_id": f"{kind}_{index}"}} if kind else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for index, (kind, source) in enumerate([("locked", setup), *cells])
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": made}
    names = solution_names(source for kind, source in cells if kind == "solution")
    limits = options.pop("limits", Limits(cell_seconds=30, notebook_seconds=120))
    job = Job(json.dumps(notebook).encode(), limits=limits, student_names=names)
    return replace(job, **options)


@pytest.fixture
def check():
    return lambda *cells, **options: Checked(run_notebook(make_job(*cells, **options)))
