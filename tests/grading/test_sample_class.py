"""The sample class that ships with the course: twelve submissions, graded to the point."""

from pathlib import Path

import pytest

from coursekit.grading.course import Course
from coursekit.grading.pipeline import grade_assignment
from coursekit.grading.sample import SampleClass, grade_sample, read_class

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = SampleClass(
    ROOT / "tests" / "grading" / "sample_class" / "class.yml",
    ROOT / "solutions",
    ROOT / "tests" / "exercises",
)


def test_the_class_shows_every_kind_of_submission_to_several_exercises():
    entries = read_class(SAMPLE.class_file)
    shown = {entry.assignment for entry in entries}
    # Not to all of them: `make course` grades this class.
    assert len(shown) >= 4
    assert shown <= {path.stem for path in SAMPLE.solutions.glob("*.py")}
    assert len({(entry.assignment, entry.student) for entry in entries}) == len(entries) == 12
    assert {"reference", "stub", "warns", "crashes"} <= {entry.answer for entry in entries}
    mishaps = {entry.mishap for entry in entries}
    assert {"not_a_notebook", "duplicated_cells", "deleted_tests", "changed_tests", "hard_exit"} <= mishaps
    assert any(entry.scores is None for entry in entries)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_submission_gets_its_known_points_and_the_second_run_grades_nothing(tmp_path):
    outcomes = grade_sample(tmp_path / "course", SAMPLE)
    wrong = {
        f"{outcome.assignment}/{outcome.student}": (dict(outcome.expected or {}), outcome.result.to_dict())
        for outcome in outcomes
        if not outcome.as_expected
    }
    assert wrong == {}
    course = tmp_path / "course"
    before = {path: path.stat().st_mtime_ns for path in course.rglob("*") if path.is_file()}
    again = grade_sample(course, SAMPLE)
    assert [o.result.to_dict() for o in again] == [o.result.to_dict() for o in outcomes]
    assert {path: path.stat().st_mtime_ns for path in course.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_known_points_are_not_met_by_another_answer(tmp_path):
    """The control: with one submission exchanged for another, the comparison says so."""
    small = tmp_path / "class" / "class.yml"
    small.parent.mkdir()
    small.write_text("training_as_optimization:\n  ada: {answer: reference}\n  bob: {answer: crashes}\n")
    sample = SampleClass(small, SAMPLE.solutions, SAMPLE.answers)
    outcomes = grade_sample(tmp_path / "course", sample)
    assert all(outcome.as_expected for outcome in outcomes)
    course = Course.open(tmp_path / "course")
    ada, bob = (course.submitted(s, "training_as_optimization") for s in ("ada", "bob"))
    name = "training_as_optimization.ipynb"
    (ada / name).write_bytes((bob / name).read_bytes())
    assert [outcome.as_expected for outcome in grade_sample(course.root, sample)] == [False, True]
    assert grade_assignment(course, "training_as_optimization")[0].score < outcomes[0].result.score
