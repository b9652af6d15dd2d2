"""The exercises of the checkout and their recorded answers, for `test_exercises.py`."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from coursekit.notebooks.answers import read_answer
from coursekit.notebooks.build import find_sources, instructor_notebook
from coursekit.notebooks.source import read_source

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {path.stem: path for path in find_sources(ROOT / "solutions")}
ANSWERS = Path(__file__).parent


@pytest.fixture
def root():
    return ROOT


@pytest.fixture
def exercise(slug):
    return _exercise(slug)


@pytest.fixture
def instructor(slug):
    """The notebook with the reference's solutions and every test; tests copy before they change it."""
    return _instructor(slug)


@pytest.fixture
def answers(slug):
    """The recorded answers of the exercise, by name."""
    return {path.stem: read_answer(path) for path in _answer_paths(slug)}


@functools.cache
def _exercise(slug):
    return read_source(SOURCES[slug])


@functools.cache
def _instructor(slug):
    return instructor_notebook(_exercise(slug))


def _answer_paths(slug):
    return sorted((ANSWERS / slug).glob("*.py"))


def pytest_generate_tests(metafunc):
    """Give each test a slug, or a slug and one of its answers, so that workers share the kernels evenly."""
    if "answer" in metafunc.fixturenames:
        pairs = [(slug, path) for slug in SOURCES for path in _answer_paths(slug)]
        params = [(slug, read_answer(path)) for slug, path in pairs]
        metafunc.parametrize(("slug", "answer"), params, ids=[f"{slug}-{path.stem}" for slug, path in pairs])
    elif "slug" in metafunc.fixturenames:
        metafunc.parametrize("slug", SOURCES)
