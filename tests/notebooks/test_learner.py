"""What a learner is told by `coursekit check`, from the shell and from inside the notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell

from coursekit.errors import InputError
from coursekit.notebooks.answers import with_answers
from coursekit.notebooks.build import notebook_text
from coursekit.notebooks.forbidden import is_solution_code
from coursekit.notebooks.learner import check_notebook, checksum
from coursekit.notebooks.scoring import grading_words, score_notebook

CHECK = "from coursekit.notebooks import check\nreport = check()\nprint(report)\nreport"
WRONG = (
    "def token_mean(loss_sums, num_valid):\n    return sum(s / n for s, n in zip(loss_sums, num_valid)) / 2"
)


@pytest.fixture
def solved(instructor, student):
    """A learner's notebook with the reference's answers in it."""
    answers = {cell.id: cell.source for cell in instructor.cells if is_solution_code(cell)}
    return with_answers(student, answers)


@pytest.fixture
def save(tmp_path):
    def write(notebook, name="toy.ipynb"):
        path = tmp_path / name
        path.write_text(notebook_text(notebook))
        return path

    return write


def cell_of(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def scores(report):
    return {cell.grade_id: cell.score for cell in report.cells}


def test_a_solved_notebook_passes_and_says_what_is_still_open(solved, save):
    report = check_notebook(save(solved))
    assert report.passed
    assert scores(report) == {
        "test_token_mean": 2,
        "test_token_mean_hidden": None,
        "test_append_squares": 3,
        "explain": None,
    }
    assert report.summary == "5 of 5 points so far; 3 more are decided at grading"
    assert report.notes == ("the question explain has no answer yet",)


def test_an_answered_question_is_no_longer_asked_for(solved, save):
    cell_of(solved, "explain").source = "Because."
    assert check_notebook(save(solved)).notes == ()


def test_the_untouched_notebook_is_told_what_is_not_written(student, save):
    report = check_notebook(save(student))
    assert not report.passed
    assert report.cells[0].message == "not written yet"
    assert report.summary.startswith("0 of 5 points so far")


def test_what_fails_comes_with_the_tests_hint(solved, save):
    cell_of(solved, "token_mean").source = WRONG
    report = check_notebook(save(solved))
    want = "expected 1.33333, got 2 (off by 0.667, allowed 1.3e-06); divide by all valid tokens of the step"
    assert (report.cells[0].score, report.cells[0].message) == (0, want)
    for view in (str(report), report._repr_html_()):
        assert want in view
        assert "3 / 3" in view


def test_the_check_gives_the_scores_of_grading(solved, instructor, save, tmp_path):
    from coursekit.notebooks.execute import run_notebook

    cell_of(
        solved, "append_squares"
    ).source = "def append_squares(values, count):\n    values += [0, 1, 4, 9]"
    answers = {cell.id: cell.source for cell in solved.cells if is_solution_code(cell)}
    graded = score_notebook(run_notebook(with_answers(instructor, answers), cwd=tmp_path))
    by_grading = {cell.grade_id: cell.score for cell in graded}
    checked = {
        name: score for name, score in scores(check_notebook(save(solved))).items() if score is not None
    }
    assert checked == {"test_token_mean": 2, "test_append_squares": 2}
    assert checked.items() <= by_grading.items()


def test_a_changed_test_earns_nothing_and_is_named(solved, save):
    cell_of(solved, "test_token_mean").source = "pass"
    cell_of(solved, "setup").source += "\nLOSS_SUMS = [0.0]"
    report = check_notebook(save(solved))
    assert report.cells[0].score == 0
    assert "this test cell was changed; grading uses the original" in report.cells[0].message
    assert "the read-only cell setup was changed; grading uses the original" in report.notes


def test_missing_and_doubled_cells_are_named(solved, save):
    solved.cells = [cell for cell in solved.cells if cell.id != "test_append_squares"]
    solved.cells.append(
        new_code_cell("def token_mean(a, b): pass", metadata=cell_of(solved, "token_mean").metadata)
    )
    report = check_notebook(save(solved))
    assert not report.passed
    assert scores(report)["test_append_squares"] == 0
    assert "cell test_append_squares is missing: fetch a new copy and move your answers" in report.notes
    assert "cell token_mean stands 2 times: delete the copies" in report.notes


HELPER = "def half(x):\n    return x / 2"
USES_HELPER = "def token_mean(loss_sums, num_valid):\n    return half(2 * sum(loss_sums) / sum(num_valid))"


def test_an_answer_may_need_an_added_cell_as_in_grading(solved, save):
    notebook = with_answers(solved, {"token_mean": USES_HELPER})
    assert not check_notebook(save(notebook)).passed
    notebook.cells.insert(0, new_code_cell(HELPER))
    assert check_notebook(save(notebook)).passed


def test_what_is_forbidden_is_so_in_an_added_cell_too(solved, save):
    notebook = with_answers(solved, {"token_mean": USES_HELPER})
    notebook.cells.insert(0, new_code_cell(f"import statistics\n{HELPER}"))
    report = check_notebook(save(notebook))
    assert scores(report)["test_token_mean"] == 0
    assert any("write it without statistics" in note for note in report.notes)


def test_a_name_that_an_answer_takes_from_a_test_is_named(solved, save):
    leans = "def append_squares(values, count):\n    values += expected\n    return len(expected)"
    report = check_notebook(save(with_answers(solved, {"append_squares": leans})))
    assert any(note.startswith("expected: an answer uses it") for note in report.notes)


def test_an_added_cell_that_no_answer_needs_costs_nothing(solved, save):
    solved.cells.insert(1, new_code_cell("from coursekit.notebooks import check\ncheck()"))
    report = check_notebook(save(solved))
    assert report.passed
    assert not any("added" in note for note in report.notes)


def test_a_changed_example_is_named(solved, save):
    examples = [cell for cell in solved.cells if "released" in cell.metadata.get("coursekit", {})]
    assert examples, "the toy has no example cell"
    examples[0].source += "\nextra = 1"
    assert any("changed an example" in note for note in check_notebook(save(solved)).notes)


def test_a_forbidden_import_is_named_and_costs_the_tests_that_need_it(solved, save):
    cell_of(solved, "token_mean").source = "from statistics import fmean as token_mean"
    report = check_notebook(save(solved))
    assert scores(report)["test_token_mean"] == 0
    assert scores(report)["test_append_squares"] == 3
    assert [note for note in report.notes if "without statistics" in note]


def test_a_cell_that_does_not_run_is_named_with_its_error(solved, save):
    cell_of(solved, "token_mean").source = "def token_mean(a, b)\n    return 1"
    report = check_notebook(save(solved))
    assert any(note.startswith("cell token_mean raised SyntaxError: expected ':'") for note in report.notes)


def test_warnings_and_prints_cost_nothing_and_the_file_is_left_alone(solved, save):
    cell_of(solved, "token_mean").source += "\nimport sys\nprint('!', file=sys.stderr)\n"
    path = save(solved)
    before = path.read_bytes()
    assert check_notebook(path).passed
    assert path.read_bytes() == before


def test_our_checksum_is_nbgraders(student):
    from nbgrader.utils import compute_checksum

    cells = [cell for cell in student.cells if grading_words(cell)]
    assert len(cells) == 7
    assert [checksum(cell) for cell in cells] == [compute_checksum(cell) for cell in cells]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such notebook"), ("{", "is no notebook"), ('{"a": 1}', "is no notebook")],
)
def test_a_file_that_is_no_exercise_is_refused(tmp_path, content, said):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        check_notebook(path)


def test_a_notebook_without_graded_cells_is_refused(save):
    with pytest.raises(InputError, match="has no graded cell"):
        check_notebook(save(nbformat.v4.new_notebook(cells=[new_markdown_cell("# Notes")])))


def test_the_command_exits_0_only_when_all_visible_tests_pass(solved, student, save):
    command = [sys.executable, "-c", "from coursekit.cli import main; main()", "check"]
    good = subprocess.run([*command, save(solved), "--json"], capture_output=True, text=True)
    report = json.loads(good.stdout)
    assert (good.returncode, report["passed"], report["score"], report["max_score"]) == (0, True, 5, 5)
    assert report["decided_at_grading"] == 3
    bad = subprocess.run([*command, save(student)], capture_output=True, text=True)
    assert (bad.returncode, "0 of 5 points so far" in bad.stdout, bad.stderr) == (1, True, "")


def run_inside(path, *, named=True):
    """Run a notebook as an editor does, whose kernel knows the file; return the outputs of the last cell."""
    notebook = nbformat.read(path, as_version=4)
    env = {**os.environ, "JPY_SESSION_NAME": str(path)} if named else dict(os.environ)
    client = NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env=env)
    return notebook.cells[-1].outputs


def text_of(outputs):
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.parametrize("named", [True, False])
def test_from_inside_the_notebook_check_finds_its_own_file(solved, save, named):
    solved.cells.append(new_code_cell(CHECK))
    outputs = run_inside(save(solved), named=named)
    assert "5 of 5 points so far; 3 more are decided at grading" in text_of(outputs)
    shown = next(output.data for output in outputs if output.output_type == "execute_result")
    assert "<table>" in shown["text/html"]
    assert "note: you ran" not in text_of(outputs)


def test_from_inside_an_unsaved_notebook_the_learner_is_told_to_save(solved, save):
    redefine = f"get_ipython().run_cell({WRONG!r}, store_history=True)\n"
    solved.cells.append(new_code_cell(redefine + CHECK))
    outputs = run_inside(save(solved))
    assert "note: you ran another token_mean than the saved file holds: save, then check again" in text_of(
        outputs
    )


def test_where_the_file_cannot_be_told_check_asks_for_its_name(solved, save):
    solved.cells.append(new_code_cell(CHECK))
    save(solved, "other.ipynb")
    outputs = run_inside(save(solved), named=False)
    assert outputs[-1].ename == "InputError"
    assert 'name it: check("<file>.ipynb")' in outputs[-1].evalue


def test_a_failing_test_shows_its_line_and_sentence_not_the_insides_of_coursekit(solved, save):
    cell_of(solved, "token_mean").source = WRONG
    path = save(solved)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=60, allow_errors=True).execute(cwd=str(path.parent))
    trace = cell_of(notebook, "test_token_mean").outputs[0].traceback
    assert trace[0].startswith("line 1 of this cell:  expect_close(token_mean(")
    assert trace[1].startswith("WrongAnswer: expected 1.33333, got 2")
    assert len(trace) == 2
