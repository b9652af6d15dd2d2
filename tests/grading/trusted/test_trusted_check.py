"""Tests run apart from the answer: what crosses, what does not, and what an answer can do about it."""

import pytest

from coursekit.grading.run import Limits
from coursekit.grading.trusted.side import TrustedSideError

SETUP = "from coursekit.notebooks import expect_close, expect_equal"
ADD = "def add(left, right):\n    return left + right"
WRONG = "def add(left, right):\n    return left - right"
TEST = "expect_close(add(2, 3), 5, hint='add the two')"


def test_a_right_answer_passes_and_a_wrong_one_reads_the_hint(check):
    right = check(("solution", ADD), ("test", TEST))
    assert right.scores == {"test_2": 2}
    wrong = check(("solution", WRONG), ("test", TEST))
    assert wrong.scores == {"test_2": 0}
    assert wrong.messages["test_2"] == "expected 5, got -1 (off by 6, allowed 5e-06); add the two"


def test_each_test_sees_the_answer_as_it_is_at_its_place(check):
    later = "def add(left, right):\n    return 5"
    done = check(("solution", WRONG), ("test", TEST), ("solution", later), ("test", TEST))
    assert done.scores == {"test_2": 0, "test_4": 2}


def test_each_test_reads_a_value_anew(check):
    tests = [("test", f"expect_equal(ANSWER, {value})") for value in (1, 2)]
    done = check(("solution", "ANSWER = 1"), tests[0], ("solution", "ANSWER = 2"), tests[1])
    assert done.scores == {"test_2": 2, "test_4": 2}


def test_a_value_is_read_and_a_function_called_with_any_plain_arguments(check):
    solution = f"{ADD}\nANSWER = [1, (2.5, 'x')]\ndef echo(*args, **kwargs):\n    return [list(args), kwargs]"
    test = (
        "expect_equal(ANSWER, [1, (2.5, 'x')])\n"
        "expect_equal(echo(1, b'a', key={'n': None}), [[1, b'a'], {'key': {'n': None}}])\n"
        "expect_equal(sum(map(add, [1, 2], [3, 4])), 10)"
    )
    assert check(("solution", solution), ("test", test)).scores == {"test_2": 2}


def test_what_means_the_same_as_plain_data_comes_back_as_plain_data(check):
    rows = "def rows(n):\n    return (range(k) for k in range(n))"
    shape = "def shape(n):\n    return {'b': {1: n}.items()}"
    tests = [
        ("test", "expect_equal([list(r) for r in rows(3)], [[], [0], [0, 1]])"),
        ("test", "expect_equal(shape(2), {'b': [(1, 2)]})"),
    ]
    done = check(("solution", f"{rows}\n{shape}"), *tests)
    assert done.scores == {"test_2": 2, "test_3": 2}


def test_a_name_of_a_builtin_is_the_students_where_the_exercise_asks_for_it(check):
    cheat = "def sum(numbers):\n    return 0"
    assert check(("solution", cheat), ("test", "expect_equal(sum([1, 2]), 3)")).scores == {"test_2": 0}
    test = ("test", "expect_equal(sum([1, 2]), 3)")
    assert check(("solution", ""), test, student_names=frozenset({"sum"})).scores == {"test_2": 0}


def test_partial_credit_and_its_reasons_are_kept(check):
    test = (
        "points_for([(0.5, lambda: expect_close(add(1, 1), 2)),\n"
        "            (1.5, lambda: expect_close(add(1, -1), 0, hint='signs'))])"
    )
    done = check(("solution", "def add(left, right):\n    return 2"), ("test", test))
    assert done.scores == {"test_2": 0.5}
    assert done.messages["test_2"] == "missed 1.5 points: expected 0, got 2 (off by 2, allowed 0); signs"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("raise NotImplementedError()", "not written yet"),
        ("raise ValueError('too small\\nindeed')", "ValueError: too small"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise type('WrongAnswer', (Exception,), {})('points, please')", "points, please"),
        ("raise type('a b', (BaseException,), {})('odd')", "Exception: odd"),
        (
            "return object()",
            "the result of add is an object; use numbers, text, lists, dicts, arrays, tensors",
        ),
        ("return 'x' * 10**8", "CodecError: too much data to pass on: more than 32 MiB"),
        ("return add(left, right)", "RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_what_an_answer_raises_is_told_and_the_next_test_runs(check, answer, message):
    done = check(("solution", f"def add(left, right):\n    {answer}"), ("test", TEST), ("test", "1.5"))
    assert done.scores == {"test_2": 0, "test_3": 1.5}
    assert done.messages["test_2"].startswith(message)


def test_a_tensor_on_its_graph_is_refused_with_the_sentence_of_the_learners_notebook(check):
    answer = "import torch\ndef add(left, right):\n    return torch.ones(2, requires_grad=True) * 2"
    done = check(("solution", answer), ("test", TEST))
    assert done.messages["test_2"].startswith(
        "the result of add is a tensor still on its autograd graph; return tensor.detach()"
    )


def test_the_place_of_an_error_in_the_students_cell_is_shown(check):
    done = check(("solution", "def add(left, right):\n    return left / 0"), ("test", TEST))
    (error,) = done.outputs("test_2")
    assert error["ename"] == "ZeroDivisionError"
    assert error["traceback"][0].startswith("line 1 of this cell:  expect_close(add(2, 3)")
    assert error["traceback"][1].strip() == "line 2 of the cell, in add:  return left / 0"


GRADIENT = """\
def gradient_at(numbers):
    import torch
    x = torch.tensor(numbers, requires_grad=True)
    loss(x).backward()
    return x.grad

expect_close(probe(gradient_at, [1.0, 2.0]), [2.0, 4.0])
"""


def test_a_probe_runs_on_the_students_side_with_its_names(check):
    right = check(("solution", "def loss(x):\n    return (x * x).sum()"), ("test", GRADIENT))
    assert right.scores == {"test_2": 2}, right.messages
    graph = GRADIENT.replace("x.grad", "loss(x)")
    done = check(("solution", "def loss(x):\n    return (x * x).sum()"), ("test", graph))
    assert done.messages["test_2"].startswith("the result of gradient_at is a tensor still on its autograd")


RANKS = """\
def on_ranks(numbers):
    from coursekit.parallel import launch

    return launch(lambda: total(numbers), 2, timeout_seconds=60)

expect_equal(probe(on_ranks, [1, 2]), [6, 6])
"""


@pytest.mark.slow
def test_a_probe_may_start_processes_on_the_students_side(check):
    answer = (
        "import torch\nimport torch.distributed as dist\n\ndef total(numbers):\n"
        "    mine = torch.tensor(sum(numbers))\n    dist.all_reduce(mine)\n    return mine.item()"
    )
    done = check(("solution", answer), ("test", RANKS))
    assert done.scores == {"test_2": 2}, done.messages


# Each replaces something that a test in the same process would rely on, and answers wrongly.
PATCHES = {
    "the comparison": "import coursekit.notebooks.expect as e\ne._close = e._equal = lambda *a, **k: None",
    "the names of the set-up": "expect_close = expect_equal = lambda *a, **k: None",
    "points_for": "import coursekit.notebooks.expect as e\ne.points_for = points_for = lambda parts: 2",
    "the cell to run": "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])",
    "the cell's tree": (
        "import ast\nclass Drop(ast.NodeTransformer):\n    def visit_Module(self, node):\n"
        "        node.body = []\n        return node\nget_ipython().ast_transformers.append(Drop())"
    ),
    "exceptions": "get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)",
    "equality": (
        "class Always(float):\n    def __eq__(self, other): return True\n"
        "    def __sub__(self, other): return 0.0\ndef add(left, right):\n    return Always(0)"
    ),
    "a fake torch tensor": (
        "parts = {'__module__': 'torch', '__eq__': lambda s, o: True, 'requires_grad': False}\n"
        "def add(left, right):\n    return type('Tensor', (), parts)()"
    ),
    "the answering code": (
        "import coursekit.grading.trusted.student_side as side\nside.answer = lambda *a, **k: 'AAAA'"
    ),
    "the answering code, well formed": (
        "import base64\nimport coursekit.grading.trusted.student_side as side\n"
        "from coursekit.grading.trusted.codec import encode\n"
        "side.answer = lambda *a: base64.b64encode(encode({'value': 5, 'points': 2})).decode()"
    ),
    "the reply": "get_ipython().user_expressions = lambda e: {'answer': {'data': {'text/plain': '2'}}}",
    "builtins": "import builtins\nbuiltins.AssertionError = builtins.abs = lambda *a: 0",
    "the printed text": "import sys\nsys.stdout.write = sys.stderr.write = lambda text: 0",
    "the last value": "import sys\nsys.displayhook = lambda value: None",
}


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_patched_student_process_gains_nothing(check, patch):
    done = check(("solution", f"{WRONG}\n{patch}"), ("test", TEST), ("test", "2"))
    assert done.scores["test_2"] == 0
    assert done.scores["test_3"] == 2, "a test that asks nothing of the student's side cannot be touched"


@pytest.mark.parametrize("name", ["the comparison", "the cell to run", "the names of the set-up"])
def test_the_same_patch_wins_where_tests_run_in_place(check, name):
    done = check(("solution", f"{WRONG}\n{PATCHES[name]}"), ("test", TEST), tests_in_place=True)
    assert done.scores["test_2"] == 2


def test_a_helper_that_a_test_forgot_to_import_is_not_the_students_to_write(check):
    cheat = f"{WRONG}\nexpect_approx = lambda *a, **k: None"
    test = ("test", "expect_approx(add(2, 3), 5)")
    done = check(("solution", cheat), test, student_names=frozenset({"add"}))
    assert done.messages["test_2"] == "NameError: name 'expect_approx' is not defined"


def test_neither_the_test_nor_its_expected_value_reaches_the_students_process(check):
    spy = (
        "import gc\ndef add(left, right):\n"
        "    messages = [o for o in gc.get_objects() if type(o) is dict and 'code' in o]\n"
        "    found = [m for m in messages if 'SEC' + 'RET' in str(m['code'])]\n"
        "    texts = [t for t in get_ipython().history_manager.input_hist_raw if 'SEC' + 'RET' in t]\n"
        "    return [len(found), len(texts)]"
    )
    done = check(("solution", spy), ("test", "SECRET = 5\nexpect_equal(add(2, 3), [0, 0])"))
    assert done.scores == {"test_2": 2}, done.messages


def test_an_argument_changed_on_the_students_side_stays_as_it_was_on_the_tests(check):
    test = "numbers = [1, 2]\nexpect_equal(total(numbers), 3)\nexpect_equal(numbers, [1, 2])"
    done = check(("solution", "def total(n):\n    return n.pop() + n.pop()"), ("test", test))
    assert done.scores == {"test_2": 2}


def test_what_a_test_prints_is_kept_and_what_the_answer_prints_meanwhile_is_not(check):
    answer = (
        "import warnings\ndef add(left, right):\n    print('missed all')\n"
        "    warnings.warn('careful')\n    return 5"
    )
    test = f"print('hello')\nimport warnings\nwarnings.warn('w')\n{TEST}"
    done = check(("solution", answer), ("test", test))
    assert done.scores == {"test_2": 2}
    printed = {output["name"]: output["text"] for output in done.outputs("test_2")}
    assert printed["stdout"] == "hello\n"
    assert "UserWarning: w" in printed["stderr"]


def test_locked_files_are_read_on_both_sides_and_a_change_stays_on_the_students(check):
    setup = f"{SETUP}\nfrom pathlib import Path\nN = int(Path('n.txt').read_text())"
    answer = "from pathlib import Path\nPath('n.txt').write_text('7')\ndef n():\n    return N"
    test = ("test", "expect_equal([n(), int(Path('n.txt').read_text())], [N, 3])")
    done = check(("solution", answer), test, setup=setup, files={"n.txt": b"3"})
    assert done.scores == {"test_2": 2}, done.messages


def test_a_locked_cell_that_fails_on_the_trusted_side_gives_no_score_at_all(check):
    with pytest.raises(TrustedSideError, match="locked_0 fails where the tests run: ZeroDivisionError"):
        check(("solution", ADD), ("test", TEST), setup="1 / 0")


QUICK = Limits(cell_seconds=2, notebook_seconds=60, drain_seconds=3)
SLEEP = "import time\ndef add(left, right):\n    time.sleep(60 if left == 2 else 0)\n    return left + right"


def test_a_slow_answer_is_stopped_and_the_next_test_gets_a_fresh_chance(check):
    parts = f"points_for([(1, lambda: expect_close(add(1, 1), 2)), (1, lambda: {TEST})])"
    done = check(("solution", SLEEP), ("test", parts), ("test", "expect_close(add(1, 1), 2)"), limits=QUICK)
    assert done.scores == {"test_2": 0, "test_3": 2}
    assert done.states == ("ok", "ok", "timeout", "ok")
    assert done.messages["test_2"] == "took too long and was stopped"


def test_a_slow_test_is_stopped_and_the_next_one_runs(check):
    done = check(("solution", ADD), ("test", "while True: pass"), ("test", TEST), limits=QUICK)
    assert done.scores == {"test_2": 0, "test_3": 2}
    assert done.states == ("ok", "ok", "timeout", "ok")


@pytest.mark.parametrize(
    "ending",
    ["os._exit(0)", "os.kill(os.getpid(), 9)", "signal.signal(2, signal.SIG_IGN)\n    while True: pass"],
)
def test_a_kernel_that_is_gone_fails_this_test_and_those_after_it(check, ending):
    answer = f"import os, signal\ndef add(left, right):\n    {ending}"
    done = check(("solution", answer), ("test", TEST), ("test", "2"), limits=QUICK)
    assert done.states == ("ok", "ok", "died", "not_run")
    assert done.scores == {"test_2": 0, "test_3": 0}


def test_a_reply_larger_than_any_answer_is_not_taken_in(check):
    flood = (
        "import coursekit.grading.trusted.student_side as side\nside.answer = lambda *a: 'A' * 50 * 2**20\n"
    )
    done = check(("solution", flood + ADD), ("test", TEST), limits=QUICK)
    assert done.scores == {"test_2": 0}
    assert done.messages["test_2"].startswith(("DeadKernelError", "took too long"))


def test_threads_that_write_and_forge_replies_disturb_nothing(check):
    noisy = (
        f"{ADD}\nimport threading, time, sys\ndef shout():\n    while True:\n"
        "        print('{\"value\": 5}')\n        print('missed', file=sys.__stderr__)\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=shout, daemon=True).start()"
    )
    done = check(("solution", noisy), ("test", TEST), ("test", TEST.replace("5", "6")))
    assert done.scores == {"test_2": 2, "test_3": 0}


def test_an_answer_that_makes_the_test_allocate_fails_that_test_only(check):
    answer = "def size():\n    return 2**40\n" + ADD
    done = check(("solution", answer), ("test", "bytearray(size())"), ("test", TEST))
    assert done.scores == {"test_2": 0, "test_3": 2}
    assert done.messages["test_2"].startswith("MemoryError")


def test_an_answer_on_which_a_test_works_without_end_costs_its_own_points_only(check):
    answer = "def size():\n    return 10**12\n" + ADD
    stuck = ("test", "sum(range(size()))")  # no interrupt is heard in there
    done = check(("solution", answer), ("test", TEST), stuck, ("test", "2"), limits=QUICK)
    assert done.states == ("ok", "ok", "ok", "died", "not_run")
    assert done.scores == {"test_2": 2, "test_3": 0, "test_4": 0}
    with pytest.raises(TrustedSideError, match="cannot be stopped"):
        check(("solution", answer), ("test", "sum(range(10**12))"), limits=QUICK)
