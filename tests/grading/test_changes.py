"""Regrading: whose points changed, and why, from what the journal kept."""

import re

import pytest
from nbgrader.api import Gradebook

from coursekit.cli import app
from coursekit.grading import journal
from coursekit.grading.changes import entries, find_changes, replaced_entries

WRONG_SIGN = "def add(left, right):\n    return left - right"


def changed(classroom):
    before = replaced_entries(classroom.course, classroom.slug)
    now = entries(classroom.course, classroom.slug)
    return {change.student: change for change in find_changes(before, now)}


def mend_test(classroom, old, new):
    source = classroom.course.source(classroom.slug)
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))


@pytest.fixture
def graded(classroom):
    classroom.hand_in("ada")
    classroom.hand_in("bob", add="def add(left, right):\n    return 5")
    classroom.grade()
    return classroom


def test_a_first_grade_and_one_that_stays_are_no_change(graded):
    assert changed(graded) == {}
    graded.grade(force=True)
    assert changed(graded) == {}


def test_a_mended_test_changes_the_points_of_those_it_concerns(graded):
    versions = {entry.version for entry in entries(graded.course, graded.slug).values()}
    mend_test(graded, "expect_close(add(2, 3), 5", "expect_close(add(2, 4), 6")
    graded.grade()
    (change,) = changed(graded).values()
    assert (change.student, change.before, change.now) == ("bob", 5, 3)
    assert change.cells == {"test_add": (2, 0)}
    assert change.why == "the exercise changed"
    assert not versions & {entry.version for entry in entries(graded.course, graded.slug).values()}


def test_one_student_can_be_graded_again_alone(graded):
    mend_test(graded, "expect_close(add(2, 3), 5", "expect_close(add(2, 4), 6")
    graded.grade("ada")
    assert changed(graded) == {}
    assert graded.grade("bob")["bob"].score == 3
    assert set(changed(graded)) == {"bob"}


def test_another_submission_and_another_pipeline_are_told_apart(graded, monkeypatch):
    graded.hand_in("ada", add=WRONG_SIGN)
    graded.grade()
    assert changed(graded)["ada"].why == "another submission"
    monkeypatch.setattr("coursekit.grading.template.PIPELINE", "next")
    graded.hand_in("ada")
    graded.grade()
    assert changed(graded)["ada"].why == "another submission, coursekit grades differently"
    assert (changed(graded)["ada"].before, changed(graded)["ada"].now) == (3, 6)


def test_an_answer_that_depends_on_chance_is_said_to(classroom):
    # The sandbox leaves it nothing but chance to depend on: right or wrong, as a coin falls in each run.
    coin = "import os\nwrong = os.urandom(1)[0] % 2\n"
    classroom.hand_in("eve", add=coin + "def add(left, right):\n    return left + right + wrong")
    classroom.grade()
    for _ in range(40):
        classroom.grade(force=True)
        if "eve" in changed(classroom):
            break
    assert "not deterministic" in changed(classroom)["eve"].why


def test_a_persons_points_are_on_both_sides(graded):
    graded.hand_in("ada", explain="Because groups differ.")
    graded.grade()
    with Gradebook(f"sqlite:///{graded.course.gradebook}") as book:
        grade = book.find_grade("explain", graded.slug, graded.slug, "ada")
        grade.manual_score, grade.needs_manual_grade = 1.5, False
        book.db.commit()
    mend_test(graded, "expect_close(add(2, 3), 5", "expect_close(add(2, 4), 7")
    graded.grade()
    assert changed(graded)["ada"].cells == {"test_add": (2, 0)}
    assert (changed(graded)["ada"].before, changed(graded)["ada"].now) == (7.5, 5.5)


def test_a_rejected_resubmission_is_a_change_too(graded):
    graded.hand_in("ada", b"no notebook")
    graded.grade()
    assert (changed(graded)["ada"].before, changed(graded)["ada"].now) == (6, 0)


def test_the_grade_that_was_replaced_is_kept_in_the_transaction_that_replaces_it(graded, monkeypatch):
    """The control: a grade that could not be written leaves no history either."""
    monkeypatch.setattr("coursekit.grading.record.Recorder._write_penalty", lambda *_: 1 / 0)
    graded.hand_in("ada", add=WRONG_SIGN)
    assert graded.grade()["ada"].status == "failed"
    assert journal.read(graded.course.gradebook, graded.slug)["ada"][2].score == 6
    assert changed(graded) == {}


def test_grading_again_ends_with_a_table_of_whose_points_changed(graded):
    from typer.testing import CliRunner

    def run(*arguments):
        done = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "140"})
        assert done.exit_code == 0, done.output
        return done.output

    grade = ("grade", graded.slug, "--course", str(graded.course.root))
    assert "changed scores" not in run(*grade, "--regrade", "--student", "ada")
    assert "nobody's points are others" in run("course", "changes", str(graded.course.root), graded.slug)
    mend_test(graded, "expect_close(add(2, 3), 5", "expect_close(add(2, 4), 6")
    told = run(*grade)
    assert "changed scores" in told
    assert re.search(r"bob\s+5\s+3\s+test_add 2 to 0\s+the exercise changed", told)
    assert "changed scores" not in run(*grade)  # nothing was graded, so nothing changed
    assert "test_add 2 to 0" in run("course", "changes", str(graded.course.root), graded.slug)
