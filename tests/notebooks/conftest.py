"""The toy exercise, and sources written for one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from coursekit.notebooks.build import instructor_notebook, student_notebook
from coursekit.notebooks.source import read_source

HEADER = "# ---\n# coursekit:\n#   title: A small exercise\n# ---\n\n"


@pytest.fixture
def toy_path():
    return Path(__file__).with_name("toy.py")


@pytest.fixture
def toy(toy_path):
    return read_source(toy_path)


@pytest.fixture
def instructor(toy):
    return instructor_notebook(toy)


@pytest.fixture
def student(instructor):
    return student_notebook(instructor)


@pytest.fixture
def write_source(tmp_path):
    """Write cells below a header to `<slug>.py` and return its path."""

    def write(cells, *, slug="small", header=HEADER):
        path = tmp_path / "solutions" / f"{slug}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(header + cells, encoding="utf-8")
        return path

    return write


@pytest.fixture
def course(tmp_path, toy_path):
    """A checkout with the toy exercise as its only one, notebooks not built."""
    root = tmp_path / "course"
    (root / "solutions").mkdir(parents=True)
    (root / "solutions" / "toy.py").write_bytes(toy_path.read_bytes())
    (root / "coursekit").mkdir()
    (root / "coursekit" / "__init__.py").write_text('"""A package."""\n')
    (root / "course.yml").write_text(
        "title: A course\nrelease_repository: ''\nbranch: main\n"
        "chapters:\n  toy: {title: A toy, minutes: {read: 1, exercise: 5}, device: cpu}\n"
    )
    return root
