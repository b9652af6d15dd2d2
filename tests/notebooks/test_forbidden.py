"""Forbidden imports are named in every form that reading can see, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from coursekit.notebooks import block_forbidden, find_forbidden, run_notebook, score_notebook
from coursekit.notebooks.forbidden import parse_cell


def solution(source, grade_id="f"):
    words = {"grade": False, "grade_id": grade_id, "locked": False, "schema_version": 3, "solution": True}
    return new_code_cell(source, metadata={"nbgrader": {**words, "task": False}})


def notebook(*cells, forbidden=("torch.optim", "coursekit.train")):
    return new_notebook(cells=list(cells), metadata={"coursekit": {"forbidden": list(forbidden)}})


@pytest.mark.parametrize(
    ("source", "name", "line"),
    [
        ("import torch.optim", "torch.optim", 1),
        ("import math\nimport torch.optim as o", "torch.optim", 2),
        ("from torch import optim", "torch.optim", 1),
        ("from torch import nn, optim as o", "torch.optim", 1),
        ("from torch.optim import SGD", "torch.optim", 1),
        ("from torch.optim.lr_scheduler import *", "torch.optim", 1),
        ("import torch\ndef f(p):\n    return torch.optim.SGD(p)", "torch.optim", 3),
        ("import torch as t\ndef f(p):\n    return t.optim.SGD(p)", "torch.optim", 3),
        ("import importlib\no = importlib.import_module('torch.optim')", "torch.optim", 2),
        ("o = __import__('torch.optim')", "torch.optim", 1),
        ("%time 3\nimport coursekit\nx = coursekit.train.seed_everything", "coursekit.train", 3),
        ("from coursekit import train", "coursekit.train", 1),
    ],
)
def test_a_forbidden_name_is_found_with_its_line(source, name, line):
    findings = find_forbidden(notebook(solution(source)))
    assert [(f.grade_id, f.name, f.line) for f in findings] == [("f", name, line)]
    assert f"without {name}" in findings[0].message


@pytest.mark.parametrize(
    "source",
    [
        "import torch\nx = torch.nn.Linear(1, 1)",
        "import torch.optimisers",
        "class torch2:\n    optim = 1\ntorch2.optim",
        "optim = {}\noptim['lr'] = 1",
        "text = 'import torch.optim'  # import torch.optim",
        "from coursekit.notebooks import probe",
        "def broken(:",
        "%%bash\npython -c 'import torch.optim'",
        "self.torch.optim",
    ],
)
def test_other_names_are_not_found(source):
    assert find_forbidden(notebook(solution(source))) == []


def test_an_alias_made_in_another_cell_is_followed_and_only_solutions_are_blamed():
    free = new_code_cell("from torch.optim import SGD as Descent\nimport torch as t")
    cells = [free, solution("def f(p):\n    return Descent(p)"), solution("t.optim.Adam", grade_id="g")]
    assert [(f.grade_id, f.name) for f in find_forbidden(notebook(*cells))] == [
        ("f", "torch.optim"),
        ("g", "torch.optim"),
    ]
    assert find_forbidden(notebook(*cells, forbidden=[])) == []


def test_a_blocked_cell_makes_its_tests_fail_with_the_message_and_no_others(instructor, tmp_path):
    cell = next(cell for cell in instructor.cells if cell.id == "token_mean")
    original = cell.source = "import statistics\ndef token_mean(a, b):\n    return sum(a) / sum(b)"
    blocked, findings = block_forbidden(instructor)
    assert cell.source == original
    scores = {s.grade_id: s for s in score_notebook(run_notebook(blocked, cwd=tmp_path))}
    assert {name: s.score for name, s in scores.items()} == {
        "test_token_mean": 0,
        "test_token_mean_hidden": 0,
        "test_append_squares": 3,
        "explain": None,
    }
    assert [f.name for f in findings] == ["statistics"]
    assert findings[0].message in scores["test_token_mean"].message


PARSE_IN_THREADS = """
import gc, sys
from concurrent.futures import ThreadPoolExecutor
from coursekit.notebooks.forbidden import parse_cell

class Cycle:
    def __init__(self): self.itself = self
    def __del__(self): sum(range(50))

def parse(number):
    for _ in range(20): Cycle()
    return parse_cell("def f(x):\\n    return [x + 1, {'a': (x, x)}]\\n" * 100) is not None

# Python code that runs in the middle of a parse, where another thread may take over.
gc.set_threshold(20)
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(parse, range(80))))
"""


def test_cells_are_parsed_right_in_several_threads_at_once():
    """Python 3.11 raised SystemError in one of ten of these, as it did now and then in grading."""
    done = subprocess.run([sys.executable, "-c", PARSE_IN_THREADS], capture_output=True, text=True)
    assert done.stdout == "80\n", done.stderr


@pytest.mark.parametrize("source", ["\n" * 100_000, " \n" * 50_000, " " * 100_000, "\t\r\f" * 30_000])
def test_a_cell_of_nothing_is_parsed_in_no_time(source):
    start = time.monotonic()
    parse_cell(source + "%")
    assert time.monotonic() - start < 5


DEEP = [
    "x = " + "+".join("1" * 40_000),
    "x = " + "-" * 90_000 + "1",
    "x = x" + "()" * 30_000,
    "x = " + "(" * 5000,
]


@pytest.mark.parametrize("source", DEEP)
def test_a_cell_nested_deeper_than_python_goes_is_no_code(source):
    assert find_forbidden(notebook(solution(source))) == []


def test_names_with_thousands_of_dots_are_read_in_no_time():
    start = time.process_time()
    found = find_forbidden(notebook(solution("import torch\n" + f"torch.optim{'.a' * 2500}\n" * 19)))
    assert time.process_time() - start < 2
    assert [finding.name for finding in found] == ["torch.optim"]
