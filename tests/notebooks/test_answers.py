"""Recorded answers: read, put into the notebook, held against their own headers."""

from __future__ import annotations

import pytest

from coursekit.errors import InputError
from coursekit.notebooks.answers import expected_scores, read_answer, with_answers

GOOD = '''"""Mean of means: each micro-batch weighs the same."""
# scores: {test_token_mean: 0, test_append_squares: 1.5}

# %% grade_id="token_mean"
def token_mean(loss_sums, num_valid):
    return 0.0

# %% grade_id="append_squares"
x = 1
'''
FULL = {"test_token_mean": 2, "test_token_mean_hidden": 1, "test_append_squares": 3}


@pytest.fixture
def write(tmp_path):
    def write_answer(text):
        path = tmp_path / "answer.py"
        path.write_text(text)
        return path

    return write_answer


def test_an_answer_replaces_the_cells_it_names_and_no_others(write, instructor):
    answer = read_answer(write(GOOD))
    assert answer.description == "Mean of means: each micro-batch weighs the same."
    before = {cell.id: cell.source for cell in instructor.cells}
    after = {cell.id: cell.source for cell in with_answers(instructor, answer.cells).cells}
    assert after["token_mean"] == "def token_mean(loss_sums, num_valid):\n    return 0.0"
    assert after["append_squares"] == "x = 1"
    assert {name for name in after if after[name] != before[name]} == {"token_mean", "append_squares"}
    assert before == {cell.id: cell.source for cell in instructor.cells}


def test_cells_that_the_header_does_not_name_keep_full_marks(write):
    want = {"test_token_mean": 0, "test_token_mean_hidden": 1, "test_append_squares": 1.5}
    assert expected_scores(read_answer(write(GOOD)), FULL) == want


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('"""Mean of means: each micro-batch weighs the same."""\n', ""), "no docstring"),
        (GOOD.replace("# scores", "# points"), "no line with scores"),
        (GOOD.replace("1.5", "most"), "scores are no numbers"),
        (GOOD.replace('# %% grade_id="append_squares"', "# %%"), "answer.py:8: a cell without a name"),
        (GOOD.split("# %%")[0], "a cell without a name"),
    ],
)
def test_a_file_that_says_too_little_is_refused(write, text, said):
    with pytest.raises(InputError, match=said):
        read_answer(write(text))


@pytest.mark.parametrize("scores", ["{no_such_test: 0}", "{test_token_mean: 3}", "{test_token_mean: -1}"])
def test_scores_that_no_test_can_give_are_refused(write, scores):
    answer = read_answer(write(GOOD.replace("{test_token_mean: 0, test_append_squares: 1.5}", scores)))
    with pytest.raises(InputError, match="scores of no such test"):
        expected_scores(answer, FULL)


def test_an_answer_to_a_cell_that_is_not_there_is_refused(write, instructor):
    with pytest.raises(InputError, match="no solution cell 'setup'"):
        with_answers(instructor, {"setup": "x = 1"})
