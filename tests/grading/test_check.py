"""Check: no points without a sign that the test ran to its end."""

import pytest

from coursekit.grading.check import score_cells, unscored


def make_cell(outputs, *, count=1, **words):
    nbgrader = {"grade": True, "solution": False, "grade_id": "t", "points": 2, **words}
    return {
        "cell_type": "code",
        "metadata": {"nbgrader": nbgrader},
        "source": "",
        "outputs": outputs,
        "execution_count": count,
    }


VALUE = {"output_type": "execute_result", "data": {"text/plain": "1.5"}, "metadata": {}, "execution_count": 1}
STDERR = {"output_type": "stream", "name": "stderr", "text": "UserWarning: careful"}
ERROR = {"output_type": "error", "ename": "WrongAnswer", "evalue": "expected 1, got 2", "traceback": []}


def score(cell, state="ok", **words):
    (scored,) = score_cells({"cells": [cell]}, (state,), **words)
    return scored.score, scored.status


def test_silence_after_a_run_is_full_marks_and_a_warning_costs_nothing():
    assert score(make_cell([])) == (2, "passed")
    assert score(make_cell([STDERR])) == (2, "passed")


def test_the_last_value_is_the_points():
    assert score(make_cell([VALUE])) == (1.5, "partial")


def test_an_error_earns_nothing_even_after_a_value():
    assert score(make_cell([VALUE, ERROR]), "error") == (0, "failed")


@pytest.mark.parametrize("state", ["not_run", "timeout", "died"])
@pytest.mark.parametrize("outputs", [[], [VALUE]])
def test_a_test_that_did_not_run_to_its_end_earns_nothing(state, outputs):
    assert score(make_cell(outputs), state)[0] == 0


def test_a_test_without_an_execution_count_earns_nothing():
    assert score(make_cell([], count=None)) == (0, "not run")


def test_an_answer_waits_for_a_person_and_an_empty_one_does_not():
    answer = {**make_cell([], solution=True), "cell_type": "markdown"}
    assert score(answer) == (None, "manual")
    assert score(answer, unanswered=frozenset({"t"})) == (0, "failed")


def test_what_was_not_run_at_all_scores_0_everywhere_with_the_reason():
    (scored,) = unscored({"cells": [make_cell([]), {"metadata": {}}]}, "no notebook")
    assert (scored.score, scored.max_score, scored.status, scored.message) == (0, 2, "not run", "no notebook")
