"""Which of a learner's own cells an answer needs."""

from __future__ import annotations

import pytest

from coursekit.notebooks.needed import find_needs

GIVEN = ("given", "import numpy as np")
STUB = 'def area(r):\n    """Area of a circle."""\n    raise NotImplementedError'
ANSWER = "def area(r):\n    return PI * r**2"
TEST = ("test", "assert area(1) > 3")
NEEDED = {
    "a constant": [GIVEN, ("added", "PI = 3.14"), ("answer", ANSWER)],
    "an import with another name": [("added", "from math import pi as PI"), ("answer", ANSWER)],
    "what a needed cell needs": [
        ("added", "def digits(): return 3.14"),
        ("added", "PI = digits()"),
        ("answer", ANSWER),
    ],
    "a class with a decorator": [
        ("added", "import functools\n@functools.cache\ndef pi(): return 3.14"),
        ("added", "class C:\n    PI = pi()"),
        ("answer", "area = lambda r: C.PI * r**2"),
    ],
    "a cell with magics and questions": [("added", "%%time\n!ls\nlen?\nPI = 3.14"), ("answer", ANSWER)],
    "the whole answer, its stub above": [
        ("answer", STUB),
        ("added", "def area(r): return 3.14"),
        TEST,
    ],
    "the whole answer, the stub deleted": [GIVEN, ("added", "area = lambda r: 3.14 * r**2"), TEST],
    "a second try below the first": [
        ("answer", "def area(r): return 0"),
        ("added", "def area(r): return 3.14"),
        TEST,
    ],
}
NOT_NEEDED = {
    "an experiment": [("answer", STUB), ("added", "total = 3\nprint(area(2))"), TEST],
    "a local name": [("added", "x = 1"), ("answer", "def area(r):\n    x = r\n    return x")],
    "what was given": [GIVEN, ("added", "np = None"), ("answer", "def area(r): return np.pi")],
    "a builtin": [("added", "sum = None"), ("answer", "def area(r): return sum([r])")],
    "a first try above the answer": [("added", "def area(r): return 0"), ("answer", ANSWER), TEST],
    "a helper of a test": [
        ("added", "def near(a, b): return True"),
        ("test", "def near(a, b): pass\nnear(area(1), 3)"),
    ],
    "what is no Python": [("added", "PI = ("), ("added", "%%bash\nPI=3"), ("answer", ANSWER)],
    "what is no program": [("added", "return PI"), ("answer", ANSWER)],
}


@pytest.mark.parametrize("cells", NEEDED.values(), ids=list(NEEDED))
def test_a_cell_is_needed_for(cells):
    added = {number for number, (kind, _) in enumerate(cells) if kind == "added"}
    assert find_needs(cells).cells == added


@pytest.mark.parametrize("cells", NOT_NEEDED.values(), ids=list(NOT_NEEDED))
def test_a_cell_is_not_needed_for(cells):
    assert find_needs(cells).cells == frozenset()


def test_a_name_that_only_a_test_binds_is_named():
    test = ("test", "PI = 3.14\nassert area(1) == PI")
    assert find_needs([("answer", ANSWER), test]).from_tests == {"PI"}
    assert find_needs([("added", "PI = 3"), ("answer", ANSWER), test]).from_tests == set()


def test_code_that_is_nested_too_deep_needs_nothing():
    assert find_needs([("added", "PI = " + "(" * 5000 + ")" * 5000), ("answer", ANSWER)]).cells == frozenset()
    assert find_needs([("answer", "PI" + "[0]" * 20_000), ("added", "PI = [0]")]).cells <= {1}
