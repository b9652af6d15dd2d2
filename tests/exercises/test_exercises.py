"""Every exercise, run as grading runs it: its reference, its stub and its recorded wrong answers.

Grading runs the tests in a process apart from the answer; a learner's notebook runs them in place. The
reference, the stub and some of the answers are run both ways.

One exercise alone: `pytest tests/exercises -k gradient_accumulation`.
"""

from __future__ import annotations

import json
from dataclasses import replace

import nbformat
import pytest

from coursekit.grading.check import score_cells
from coursekit.grading.run import Job, Limits
from coursekit.grading.run import run_notebook as run_graded
from coursekit.notebooks.answers import expected_scores, with_answers
from coursekit.notebooks.build import build_exercise, student_notebook
from coursekit.notebooks.cell_names import solution_names
from coursekit.notebooks.contract import contract_breaches
from coursekit.notebooks.course_file import release_address
from coursekit.notebooks.execute import run_notebook
from coursekit.notebooks.forbidden import block_forbidden, find_forbidden, is_solution_code
from coursekit.notebooks.scoring import grading_words, is_hidden, name_of, score_notebook
from coursekit.notebooks.watch import watched_notebook

CELL_SECONDS = 60.0


@pytest.fixture
def run(as_fork, tmp_path):
    """Runs a notebook as a learner does, all in one kernel."""
    return lambda notebook: run_notebook(
        block_forbidden(notebook)[0], cwd=tmp_path, cell_seconds=CELL_SECONDS, prepare=as_fork
    )


@pytest.fixture
def graded(boxed, instructor):
    """Runs a notebook as `coursekit grade` does; returns the scores of the test cells and all messages.

    hidden_apart: run it once more without hidden tests if it shows anything, as it is done for students.
    """
    hidden = frozenset(name_of(cell) for cell in instructor.cells if is_hidden(cell))
    cells = [*instructor.cells, *student_notebook(instructor).cells]
    names = solution_names(cell.source for cell in cells if is_solution_code(cell))
    limits = Limits(cell_seconds=CELL_SECONDS)

    def run_and_score(notebook, *, hidden_apart=False):
        data = json.dumps(block_forbidden(notebook)[0]).encode()
        job = Job(data, limits=limits, student_names=names, sandbox=boxed)
        done = run_graded(replace(job, hidden_tests=hidden) if hidden_apart else job)
        executed = nbformat.reads(done.notebook.decode(), as_version=4)
        scores = score_cells(executed, done.states)
        said = messages(executed) | {cell.grade_id: cell.message for cell in scores if cell.message}
        return {cell.grade_id: cell.score for cell in scores if cell.status != "manual"}, said

    return run_and_score


def auto_scores(executed):
    return {cell.grade_id: cell.score for cell in score_notebook(executed) if cell.status != "manual"}


def messages(executed):
    """What the graded cells and the solution cells said, for a failing assertion."""
    said = {cell.grade_id: cell.message for cell in score_notebook(executed) if cell.message}
    for cell in filter(is_solution_code, executed.cells):
        errors = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
        said |= {grading_words(cell)["grade_id"]: error for error in errors}
    return said


def full_scores(exercise):
    return {cell.grade_id: cell.points for cell in exercise.of_kind("tests")}


def test_the_released_notebook_is_what_the_source_gives(root, exercise):
    repository, branch = release_address(root / "course.yml")
    changed = build_exercise(
        exercise.path,
        solutions=root / "solutions",
        exercises=root / "exercises",
        repository=repository,
        branch=branch,
        write=False,
    )
    stale = [path for path in changed if path.is_relative_to(root / "exercises")]
    assert not stale, "run: coursekit notebooks build"


def test_its_test_cells_keep_to_the_contract(exercise):
    assert [str(breach) for breach in contract_breaches(exercise)] == []


def test_the_reference_uses_nothing_that_the_exercise_forbids(instructor):
    assert find_forbidden(instructor) == []


def test_the_reference_gets_full_marks(exercise, instructor, run):
    executed = run(instructor)
    assert auto_scores(executed) == full_scores(exercise), messages(executed)


def test_the_reference_gets_full_marks_where_the_tests_run_apart(exercise, instructor, graded):
    scores, said = graded(instructor)
    assert scores == full_scores(exercise), said


def test_the_tests_call_the_reference_with_plain_data_and_get_plain_data(exercise, instructor, run):
    executed = run(watched_notebook(instructor))
    assert auto_scores(executed) == full_scores(exercise), messages(executed)


def test_the_stub_gets_nothing(exercise, instructor, run, graded):
    stubs = {
        grading_words(cell)["grade_id"]: cell.source
        for cell in student_notebook(instructor).cells
        if is_solution_code(cell)
    }
    notebook, none = with_answers(instructor, stubs), dict.fromkeys(full_scores(exercise), 0)
    assert auto_scores(run(notebook)) == none
    scores, said = graded(notebook)
    assert scores == none
    assert [said[name] for name in none if "not written yet" not in said[name]] == []


def test_the_recorded_answer_scores_what_its_header_says(exercise, instructor, answer, graded):
    # A test must need no name of a hidden one; two answers that show something are enough to tell.
    hidden_apart = answer.path.stem in ("warns", "crashes")
    scores, said = graded(with_answers(instructor, answer.cells), hidden_apart=hidden_apart)
    assert scores == expected_scores(answer, full_scores(exercise)), said


def test_the_recorded_answer_scores_the_same_in_a_learners_notebook(
    exercise, instructor, answer, answers, run
):
    wrong = sorted(name for name, other in answers.items() if other.scores and name != "crashes")
    if answer.path.stem not in ("warns", "crashes", *wrong[:2]):
        return  # the others are graded only: one kernel an answer is enough
    executed = run(with_answers(instructor, answer.cells))
    assert auto_scores(executed) == expected_scores(answer, full_scores(exercise)), messages(executed)
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    if answer.path.stem == "warns":
        assert any(o.output_type == "stream" and o.name == "stderr" for o in outputs), "warns.py must warn"
    if answer.path.stem == "crashes":
        crashed = [cell for cell in executed.cells if is_solution_code(cell)]
        assert any(o.output_type == "error" for cell in crashed for o in cell.outputs), (
            "crashes.py must raise"
        )


def test_it_has_three_wrong_answers_one_that_warns_and_one_that_crashes(exercise, answers):
    assert {"warns", "crashes"} <= set(answers)
    assert answers["warns"].scores == {}, "a right answer that warns keeps full marks"
    full = full_scores(exercise)
    wrong = [name for name, answer in answers.items() if expected_scores(answer, full) != full]
    assert len(set(wrong) - {"crashes"}) >= 3


def test_every_test_cell_is_lost_by_some_wrong_answer(exercise, answers):
    """A test that no wrong answer fails has not been seen to test anything."""
    lost = set().union(*(answer.scores for name, answer in answers.items() if name != "crashes"))
    assert set(full_scores(exercise)) - lost == set()
