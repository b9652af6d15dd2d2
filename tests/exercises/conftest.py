"""The exercises of the checkout and their recorded answers, for `test_exercises.py`.

A kernel that has to import torch or TensorFlow first takes seconds; here each is a fork of a template that
has, one template a framework and test process, as in `coursekit grade`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from coursekit.grading.provisioner import use_sandbox
from coursekit.grading.sandbox.policy import Policy, modules_for
from coursekit.grading.sandbox.probe import probe
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


@pytest.fixture
def boxed(slug):
    """The policy that grading runs the exercise with; without a sandbox where it could not run in one."""
    protection = probe()
    # Without a network of its own a box has no sockets at all, and exercises start processes that need some.
    return protection.policy(preload=_modules(slug)) if "network" in protection.granted else _forked(slug)


@pytest.fixture
def as_fork(slug):
    """Makes a kernel manager start its kernel as a fork, for `run_notebook`."""
    return functools.partial(use_sandbox, policy=_forked(slug))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Kernels beside each other that each take every core slow each other down."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def _forked(slug):
    return Policy(preload=_modules(slug))


def _modules(slug):
    return modules_for("\n".join(cell.source for cell in _instructor(slug).cells if cell.cell_type == "code"))


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


def pytest_collection_modifyitems(items):
    """Put the tests of an exercise after each other: a worker then has few templates to start."""
    places = [place for place, item in enumerate(items) if item.path.parent == ANSWERS]
    ours = sorted((items[place] for place in places), key=lambda item: item.callspec.params["slug"])
    for place, item in zip(places, ours, strict=True):
        items[place] = item
