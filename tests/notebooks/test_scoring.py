"""From outputs to points in real kernels, and nbgrader's own numbers where both know what to do."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from coursekit.notebooks.execute import run_notebook
from coursekit.notebooks.scoring import score_cell, score_notebook


def graded_cell(source, *, points=4, grade_id="test", outputs=(), count=None):
    words = {
        "grade": True, "grade_id": grade_id, "locked": True, "points": points, "schema_version": 3,
        "solution": False, "task": False,
    }  # fmt: skip
    return new_code_cell(source, metadata={"nbgrader": words}, outputs=list(outputs), execution_count=count)


# What `launch` raises where the learner's stub ran on its ranks.
STUB_ON_A_RANK = """
from coursekit.parallel import RankError, RankFailure
raise RankError([RankFailure(0, "NotImplementedError", "Traceback ..."), RankFailure(1, "...")], 2)
"""

CASES = [
    ("pass", 4, "passed", ""),
    ("print('noise')", 4, "passed", ""),
    ("import sys; print('careful', file=sys.stderr)", 4, "passed", ""),
    ("import warnings; warnings.warn('careful')", 4, "passed", ""),
    ("assert 1 == 2", 0, "failed", "AssertionError (line 1 of cell test)"),
    ("assert 1 == 2, 'count the tokens'", 0, "failed", "count the tokens"),
    ("raise NotImplementedError()", 0, "failed", "not written yet"),
    (STUB_ON_A_RANK, 0, "failed", "not written yet"),
    ("1 / 0", 0, "failed", "ZeroDivisionError: division by zero (line 1 of cell test)"),
    ("2.5", 2.5, "partial", "2.5 of 4 points"),
    ("3", 3, "partial", "3 of 4 points"),
    ("4", 4, "passed", ""),
    ("9", 4, "passed", ""),
    ("-1", 0, "failed", "0 of 4 points"),
    ("import numpy; numpy.float64(2.5)", 2.5, "partial", "2.5 of 4 points"),
    ("float('nan')", 0, "failed", "the test ended with a value that is no number of points"),
    ("'4'", 0, "failed", "the test ended with a value that is no number of points"),
    ("print('missed 1 point: look up'); 3", 3, "partial", "missed 1 point: look up"),
]


def test_every_kind_of_ending_scores_as_it_should(tmp_path):
    notebook = new_notebook(cells=[graded_cell(source) for source, *_ in CASES])
    scores = score_notebook(run_notebook(notebook, cwd=tmp_path))
    assert [(s.score, s.status, s.message) for s in scores] == [tuple(case[1:]) for case in CASES]


def test_nbgrader_agrees_wherever_it_does_not_punish_warnings_or_reward_nonsense(tmp_path):
    from nbgrader.utils import determine_grade

    ours_only = ("stderr", "warn", "nan", "'4'", "9", "-1", "numpy")
    cases = [case for case in CASES if not any(word in case[0] for word in ours_only)]
    executed = run_notebook(new_notebook(cells=[graded_cell(case[0]) for case in cases]), cwd=tmp_path)
    assert len(cases) >= 9
    for cell in executed.cells:
        assert determine_grade(cell) == (score_cell(cell).score, 4)


def test_a_kernel_that_dies_leaves_nothing_for_the_cells_after_it(tmp_path):
    sources = ["pass", "import os; os._exit(0)", "pass"]
    notebook = new_notebook(cells=[graded_cell(source, grade_id=f"t{n}") for n, source in enumerate(sources)])
    scores = score_notebook(run_notebook(notebook, cwd=tmp_path))
    assert [(s.score, s.status) for s in scores] == [(4, "passed"), (0, "failed"), (0, "not run")]
    assert "kernel died" in scores[1].message


def test_a_cell_that_never_ends_is_stopped_and_the_rest_still_runs(tmp_path):
    sources = ["while True: pass", "pass"]
    notebook = new_notebook(cells=[graded_cell(source, grade_id=f"t{n}") for n, source in enumerate(sources)])
    scores = score_notebook(run_notebook(notebook, cwd=tmp_path, cell_seconds=1.0))
    assert [(s.score, s.message) for s in scores] == [(0, "took too long and was stopped"), (4, "")]


def test_outputs_that_were_saved_count_for_nothing(tmp_path):
    old = new_output("execute_result", data={"text/plain": "4"}, execution_count=1)
    notebook = new_notebook(cells=[graded_cell("assert False", outputs=[old], count=1)])
    assert score_notebook(run_notebook(notebook, cwd=tmp_path))[0].score == 0
    assert notebook.cells[0].outputs == [old]  # the learner's file is not touched


def test_a_cell_that_did_not_run_earns_nothing_and_an_answer_waits_for_a_person(student):
    scores = {score.grade_id: score for score in score_notebook(student)}
    assert (scores["test_token_mean"].score, scores["test_token_mean"].status) == (0, "not run")
    assert (scores["explain"].score, scores["explain"].status) == (None, "manual")
    assert scores["test_token_mean_hidden"].hidden


@pytest.mark.parametrize("raising", ["f()", "[f() for _ in range(2)]"])
def test_an_error_is_placed_in_the_learners_cell_where_it_arose(tmp_path, raising):
    words = {
        "grade": False,
        "grade_id": "f",
        "locked": False,
        "schema_version": 3,
        "solution": True,
        "task": False,
    }
    solution = new_code_cell(
        "import json\ndef f():\n    return json.loads('{')", metadata={"nbgrader": words}
    )
    executed = run_notebook(new_notebook(cells=[solution, graded_cell(raising)]), cwd=tmp_path)
    assert score_notebook(executed)[0].message.endswith("(line 3 of cell f)")
