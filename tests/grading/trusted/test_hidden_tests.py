"""Hidden tests run in a kernel of their own: nothing that is shown comes from one that they have called."""

import functools

import pytest

from coursekit.grading.sandbox.policy import Policy

SPY = "seen = []\ndef add(left, right):\n    seen.append(left)\n    return left + right"
VISIBLE = ("test", "expect_close(add(2, 3), 5)")
HIDDEN = ("test", "expect_close(add(4711, 1), 4712)")
TELLING = [
    "print(seen)\ndef other(): pass",
    "def other(): pass\nseen",
    "def other():\n    return str(seen)",
    "def other():\n    raise ValueError(str(seen))",
]
LATER = ("test", "expect_equal(other(), 1)")


@pytest.fixture
def check(check):
    return functools.partial(check, sandbox=Policy(preload=("numpy",)))


@pytest.mark.parametrize("telling", TELLING)
def test_what_a_hidden_test_calls_with_is_in_no_other_output(check, telling):
    def told(**options):
        done = check(("solution", SPY), VISIBLE, HIDDEN, ("solution", telling), LATER, **options)
        assert (done.scores["test_2"], done.scores["test_3"]) == (2, 2)
        return "4711" in str([cell["outputs"] for cell in done.cells if cell["id"] != "test_3"])

    assert not told(hidden_tests=frozenset({"test_3"}))
    assert told(), "where all tests run in the kernel whose outputs are shown, it is told"


def test_a_hidden_test_sees_the_answer_as_it_is_at_its_place(check):
    wrong = "def add(left, right):\n    return 0"
    cells = (("solution", SPY), HIDDEN, ("solution", wrong), HIDDEN, VISIBLE)
    done = check(*cells, hidden_tests=frozenset({"test_2", "test_4"}))
    assert done.scores == {"test_2": 2, "test_4": 0, "test_5": 0}


def test_hidden_tests_see_neither_what_visible_ones_did_nor_the_other_way_round(check):
    counting = "calls = 0\ndef count():\n    global calls\n    calls += 1\n    return calls"
    cells = [("solution", counting), *[("test", "expect_equal(count(), 1)")] * 2]
    assert check(*cells, hidden_tests=frozenset({"test_3"})).scores == {"test_2": 2, "test_3": 2}
    assert check(*cells).scores == {"test_2": 2, "test_3": 0}


def test_a_kernel_that_dies_costs_hidden_tests_what_stands_below(check):
    exits = "import os\nos._exit(1)"
    cells = (("solution", SPY), HIDDEN, ("solution", exits), HIDDEN, VISIBLE)
    done = check(*cells, hidden_tests=frozenset({"test_2", "test_4"}))
    assert done.scores == {"test_2": 2, "test_4": 0, "test_5": 0}
    assert done.states == ("ok", "ok", "ok", "died", "not_run", "not_run")


def test_a_visible_test_in_which_the_kernel_dies_costs_no_hidden_one(check):
    dies = "def other():\n    import os\n    os._exit(1)"
    cells = (("solution", f"{SPY}\n{dies}"), LATER, HIDDEN, VISIBLE)
    done = check(*cells, hidden_tests=frozenset({"test_3"}))
    assert done.scores == {"test_2": 0, "test_3": 2, "test_4": 0}
