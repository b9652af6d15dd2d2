"""A course folder with a toy exercise, torch-free, and hands to put submissions into it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest

from coursekit.grading.course import Course
from coursekit.grading.create import init_course
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.run import Limits

TOY = Path(__file__).with_name("toy_adding.py")
SLUG = "toy_adding"
GOOD = {
    "add": "def add(left, right):\n    return left + right",
    "mean": "def mean(numbers):\n    return sum(numbers) / len(numbers)",
}
FULL = {"test_add": 2, "test_add_hidden": 1, "test_mean": 3}
NONE = dict.fromkeys(FULL, 0)


class Classroom:
    """A course folder of a test's own, with the toy exercise."""

    slug, good, full, none = SLUG, GOOD, FULL, NONE

    def __init__(self, course: Course) -> None:
        self.course = course
        self.released = json.loads(course.release(SLUG).read_bytes())

    def notebook(self, **answers: str) -> dict:
        """The released notebook with solution cells replaced by grade_id."""
        notebook = copy.deepcopy(self.released)
        for cell in notebook["cells"]:
            grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
            cell["source"] = answers.get(grade_id, cell["source"])
        return notebook

    def hand_in(self, student: str, submission: dict | bytes | None = None, **answers: str) -> Path:
        """Write a submission: bytes, a notebook, or the good answers with some replaced."""
        data = submission if submission is not None else self.notebook(**{**GOOD, **answers})
        path = self.course.submitted(student, SLUG) / f"{SLUG}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return path

    def grade(self, *students: str, force: bool = False, cell_seconds: float = 20, **options):
        """Grade, and return student -> result."""
        limits = Limits(cell_seconds=cell_seconds, notebook_seconds=60)
        chosen = Options(students, workers=2, force=force, limits=limits, allow_unsandboxed=True)
        results = grade_assignment(self.course, SLUG, options=chosen, **options)
        return {result.student: result for result in results}

    @staticmethod
    def auto_scores(result) -> dict[str, float]:
        """grade_id -> points of the test cells of a result."""
        return {cell.grade_id: cell.score for cell in result.cells if cell.grade_id in FULL}


def _code_notebook(*sources: str) -> bytes:
    """A notebook of plain code cells."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "source": s,
            "outputs": [],
            "execution_count": None,
        }
        for i, s in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
    ).encode()


@pytest.fixture(scope="session")
def code_notebook():
    return _code_notebook


@pytest.fixture(scope="session")
def toy_course(tmp_path_factory):
    return init_course(tmp_path_factory.mktemp("toy") / "course", sources=[TOY])


def copied(course, folder):
    """A classroom of a test's own, with what was done in another: grading takes longer than copying."""
    shutil.copytree(course.root, folder / "course")
    return Classroom(Course.open(folder / "course"))


@pytest.fixture
def classroom(toy_course, tmp_path):
    return copied(toy_course, tmp_path)
