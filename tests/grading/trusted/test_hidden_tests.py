"""What is shown comes from no kernel that a hidden test has called; a second one runs only where it must."""

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


def test_visible_tests_see_nothing_of_what_hidden_ones_did(check):
    counting = "calls = 0\ndef count():\n    global calls\n    calls += 1\n    return calls"
    cells = [("solution", counting), *[("test", "expect_equal(count(), 1)")] * 2]
    assert check(*cells, hidden_tests=frozenset({"test_2"})).scores == {"test_2": 2, "test_3": 2}
    assert check(*cells).scores == {"test_2": 2, "test_3": 0}


RIGHT, DIES = "def other(): return 1", "def other():\n    import os\n    os._exit(1)"
KERNELS = {RIGHT: 1, f"{RIGHT}\nprint(1)": 2, f"{RIGHT}\n1": 2, "def other(): return 2": 2, DIES: 3}


@pytest.mark.parametrize("answer", KERNELS)
def test_only_an_answer_that_could_tell_something_runs_more_than_once(check, tmp_path, answer):
    count = f"with open({str(tmp_path / 'kernels')!r}, 'a') as file: file.write('x')"
    cells = (("solution", f"{count}\nprint('above')"), ("solution", SPY), HIDDEN, ("solution", answer), LATER)
    done = check(*cells, hidden_tests=frozenset({"test_3"}))
    assert len((tmp_path / "kernels").read_text()) == KERNELS[answer]
    assert done.scores == {"test_3": 2, "test_5": 2 * answer.startswith(RIGHT)}


def test_a_hidden_test_that_fails_says_nothing_and_needs_no_second_kernel(check, tmp_path):
    count = f"with open({str(tmp_path / 'kernels')!r}, 'a') as file: file.write('x')"
    done = check(("solution", f"{count}\ndef add(a, b): return 5"), VISIBLE, HIDDEN, hidden_tests={"test_3"})
    assert done.scores == {"test_2": 2, "test_3": 0}
    assert (tmp_path / "kernels").read_text() == "x"


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


def test_the_number_of_a_cell_is_the_graders_and_tells_nothing(check):
    forged = """
hook = get_ipython().displayhook
content = {"code": "", "execution_count": seen[-1]}
hook.session.send(hook.pub_socket, "execute_input", content, parent=hook.parent_header)
def other(): return 1
"""
    cells = (("solution", SPY), VISIBLE, HIDDEN, ("solution", forged), LATER)
    done = check(*cells, hidden_tests=frozenset({"test_3"}))
    assert done.scores == {"test_2": 2, "test_3": 2, "test_5": 2}
    assert [cell["execution_count"] for cell in done.cells] == [1, 2, 3, 4, 3, 6]
