"""Breaches of the test cells' contract are found, by reading or by running, and the toy keeps to it."""

from __future__ import annotations

import pytest

from coursekit.notebooks.contract import contract_breaches
from coursekit.notebooks.execute import run_notebook
from coursekit.notebooks.scoring import score_notebook
from coursekit.notebooks.source import read_source
from coursekit.notebooks.watch import watched_notebook

BEFORE = """\
# %% nbgrader="locked" grade_id="setup"
import torch
from coursekit.notebooks import expect_close, expect_equal, points_for, probe
from coursekit.train import seed_everything

LENGTHS = [1, 5]

# %%
free = 3

# %% nbgrader="solution" grade_id="f"
import math

CONSTANT = 2

def f(x):
    ### BEGIN SOLUTION
    return x
    ### END SOLUTION

class Model:
    ### BEGIN SOLUTION
    pass
    ### END SOLUTION

# %% nbgrader="tests" grade_id="earlier" points=1
wanted = 3
expect_close(f(3), wanted)

# %% nbgrader="tests" grade_id="test" points=1
"""
BROKEN = [
    ("expect_close(f(math.pi), math.pi)", "uses math, which no locked or"),
    ("expect_close(f.__defaults__, 1)", "without calling it"),
    ("g = f\nexpect_close(g(1), 1)", "without calling it"),
    ("expect_close(CONSTANT, 2)", "without calling it"),
    ("expect_close(list(map(f, [1])), [1])", "without calling it"),
    ("expect_close(f(f), 1)", "passes the learner's f to f"),
    ("expect_close(f(lambda x: x), 1)", "passes a lambda to the learner's f"),
    ("expect_close(f(n for n in LENGTHS), 1)", "passes a generator"),
    ("expect_close(Model()(1), 1)", "makes an object of the learner's class Model"),
    ("def f(x): return 1\nexpect_close(f(1), 1)", "binds the learner's name f"),
    ("torch.manual_seed(0)\nexpect_close(f(1), 1)", "seeds the whole process with torch.manual_seed"),
    ("expect_close(f(3), wanted)", "uses wanted of test cell earlier"),
    ("expect_close(f(3), free)", "uses free of an unmarked cell"),
    ("expect_close(f(3), numpy.pi)", "uses numpy, which no locked or solution cell defines"),
    ("from coursekit.train import x\nexpect_close(f(3), x)", "imports coursekit in a test"),
    ("import coursekit.parallel as p\nexpect_close(f(3), p.x())", "imports coursekit in a test"),
    ("expect_close(f(3), seed_everything(1))", "uses coursekit's seed_everything outside a probe"),
    ("expect_close(probe(f, 3), 3)", "something else than a function of this cell"),
    ("expect_close(probe(lambda: f(3)), 3)", "something else than a function of this cell"),
    ("def p(x=1): return f(x)\nexpect_close(probe(p), 1)", "probe p has default values"),
    (
        "def p(): return f(want)\nwant = 1\nexpect_close(probe(p), want)",
        "uses want, another name of the test cell",
    ),
    ("def p(): return f(other)\nexpect_close(probe(p), 1)", "uses other, a name that is not there"),
    ("def p():\n    global n\n    n = 1\nexpect_equal(probe(p), None)", "declares n global"),
    ("@torch.no_grad()\ndef p(): return f(1)\nexpect_close(probe(p), 1)", "probe p is decorated"),
    ("def p(x): return f(x)\nexpect_close(probe(p, x=1), 1)", "takes no keyword arguments"),
    ("try:\n    f(-1)\nexcept ValueError:\n    pass", "catches what the learner's f raises"),
]
KEPT = [
    "import math\nexpect_close(f(math.pi), math.pi)",
    "expect_close(f(LENGTHS), [1, 5])",
    "expect_close(f(f(3)), 3)",
    "expect_close(f(torch.tensor([1.0])).tolist(), [1.0])",
    "want = [n * n for n in LENGTHS]\nexpect_close([f(n * n) for n in LENGTHS], want)",
    "points_for([(1, lambda: expect_close(f(1), 1))])",
    "def p(n):\n    import math\n    model = Model()\n    def inner(k): return k + n\n"
    "    return inner(f(math.floor(n)))\nexpect_close(probe(p, 1.5), 2.5)",
    "def p(n):\n    try:\n        f(n)\n    except ValueError as error:\n        return str(error)\n"
    "expect_equal(probe(p, 1), None)",
    "def p():\n    seed_everything(1)\n    return torch.rand(1)\n"
    "expect_equal(f(1), 1) if len(probe(p)) else None",
    "def oracle(n: int) -> int: return n\nexpect_close(f(3), oracle(3))",
]


@pytest.mark.parametrize(("test", "said"), BROKEN)
def test_a_breach_is_found_with_its_line_and_what_to_do(write_source, test, said):
    exercise = read_source(write_source(BEFORE + test + "\n"))
    breaches = contract_breaches(exercise)
    assert any(said in breach.problem for breach in breaches), breaches
    first = next(breach for breach in breaches if said in breach.problem)
    last_line = len(exercise.path.read_text().rstrip("\n").split("\n"))
    assert first.grade_id == "test"
    assert exercise.of_kind("tests")[-1].line < first.line <= last_line
    assert first.fix
    assert str(first).startswith(f"{exercise.path}:{first.line}: test: ")


@pytest.mark.parametrize("test", KEPT)
def test_cells_that_keep_to_the_contract_are_left_alone(write_source, test):
    assert contract_breaches(read_source(write_source(BEFORE + test + "\n"))) == []


def test_locked_cells_may_not_need_the_learner(write_source):
    source = BEFORE + 'expect_close(f(1), 1)\n\n# %% nbgrader="locked" grade_id="late"\ny = f(3)\n'
    breaches = contract_breaches(read_source(write_source(source)))
    assert [(breach.grade_id, breach.problem) for breach in breaches] == [
        ("late", "a locked cell uses the learner's f")
    ]


def test_the_toy_keeps_to_the_contract_read_and_run(toy, instructor, tmp_path):
    assert contract_breaches(toy) == []
    scores = score_notebook(run_notebook(watched_notebook(instructor), cwd=tmp_path))
    assert [score.score for score in scores] == [2, 1, 3, None]


@pytest.mark.parametrize(
    ("solution", "said"),
    [
        (
            "import decimal\ndef token_mean(a, b):\n    return decimal.Decimal(1)",
            "the result of token_mean is a Decimal",
        ),
        ("def token_mean(a, b):\n    a.append(1)\n    return 8 / 6", "token_mean changes its argument 1"),
    ],
)
def test_running_finds_what_reading_cannot(instructor, tmp_path, solution, said):
    next(cell for cell in instructor.cells if cell.id == "token_mean").source = solution
    scores = score_notebook(run_notebook(watched_notebook(instructor), cwd=tmp_path))
    assert scores[0].score == 0
    assert said in scores[0].message


def test_running_finds_arguments_that_are_not_plain(instructor, tmp_path):
    cell = next(cell for cell in instructor.cells if cell.id == "test_token_mean")
    cell.source = "token_mean({1.0}, [1])"
    scores = score_notebook(run_notebook(watched_notebook(instructor), cwd=tmp_path))
    assert "argument 1 of token_mean is a set" in scores[0].message
