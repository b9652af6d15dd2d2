"""What waits for a person: unread answers, and answers that changed after a person graded them."""

import pytest
from nbgrader.api import Gradebook

from coursekit.grading import journal
from coursekit.grading.report import Result
from coursekit.grading.show import print_status, print_table
from coursekit.grading.status import AssignmentStatus, course_status

CHANGED = "answer_changed_after_grading:explain"


@pytest.fixture
def ada(classroom):
    """Hand in an answer of Ada's; grade it by hand."""

    class Ada:
        course = classroom.course

        @staticmethod
        def answers(text):
            classroom.hand_in("ada", explain=text)

        @staticmethod
        def graded(**options):
            return classroom.grade(**options)["ada"]

        def gets_by_hand(self, points):
            with Gradebook(f"sqlite:///{self.course.gradebook}") as book:
                grade = book.find_grade("explain", "toy_adding", "toy_adding", "ada")
                grade.manual_score, grade.needs_manual_grade = points, False
                book.db.commit()

        def waits(self):
            (state,) = course_status(self.course)
            cells = journal.waiting(self.course.gradebook, "toy_adding")
            assert state.waiting == len(cells)
            return cells == {("ada", "explain")}

        def page(self):
            return self.course.feedback("ada", "toy_adding").read_text()

    return Ada()


def test_an_answer_waits_until_it_is_graded_and_not_again_while_it_stays_the_same(ada):
    ada.answers("Because groups differ.")
    assert CHANGED not in ada.graded().flags
    assert ada.waits()
    ada.gets_by_hand(1.5)
    assert not ada.waits()
    again = ada.graded(force=True)
    assert (again.score, again.flags) == (7.5, ())
    assert not ada.waits()


def test_a_changed_answer_keeps_its_points_waits_again_and_is_flagged_until_it_is_read(ada):
    ada.answers("Because groups differ.")
    ada.graded()
    ada.gets_by_hand(1.5)
    ada.answers("It is the mean.")
    for force in (False, False, True):
        result = ada.graded(force=force)
        assert result.score == 7.5
        assert CHANGED in result.flags
        assert "to be looked at again" in result.cells[-1].message
        assert ada.waits()
    ada.gets_by_hand(0)
    for force in (False, True):
        result = ada.graded(force=force)
        assert (result.score, result.flags) == (6, ())
        assert not ada.waits()


def test_an_answer_that_was_unreadable_in_between_waits_again(ada, classroom):
    ada.answers("Because groups differ.")
    ada.graded()
    ada.gets_by_hand(1.5)
    classroom.hand_in("ada", b"no notebook")
    assert ada.graded().status == "rejected"
    ada.answers("It is the mean.")
    ada.graded()
    assert ada.waits()


def test_the_feedback_page_says_that_an_answer_is_not_read_yet(ada):
    ada.answers("Because groups differ.")
    ada.graded()
    assert "Not read yet" in ada.page()
    assert "The score is not final: 1 of your answers not read yet." in ada.page()
    ada.gets_by_hand(1.5)
    ada.graded(force=True)
    assert "read yet" not in ada.page()
    assert "Because groups differ." in ada.page()


def test_the_state_of_a_course_fits_a_terminal_with_how_many_answers_are_to_be_read(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_status([AssignmentStatus("activation_checkpointing", True, 300, 280, 9, 11, waiting=257)])
    shown = capsys.readouterr().out
    assert "to read" in shown
    assert "activation_checkpointing   300" in shown
    assert "257" in shown
    print_status([AssignmentStatus("fresh", False, 0, 0, 0, 0, waiting=0)])
    assert "fresh (not released)" in capsys.readouterr().out


def test_below_the_table_stands_how_many_have_which_status_and_who_is_not_graded(capsys):
    statuses = {"ada": "graded", "bob": "rejected", "cyd": "graded", "dan": "failed", "eve": "rejected"}
    print_table("toy_adding", [Result(*item, 1.0, 8.0, 1.0) for item in statuses.items()], waiting=1)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "5 submissions: 2 graded, 2 rejected, 1 failed",
        "failed: dan",
        "rejected: bob, eve",
        "1 answer waits for a person: coursekit course answers, or Formgrader in JupyterLab",
    ]


def test_the_table_ends_with_how_many_answers_wait(capsys):
    print_table("toy_adding", [], waiting=2)
    assert "2 answers wait for a person" in capsys.readouterr().out
    print_table("toy_adding", [], waiting=0)
    assert "wait" not in capsys.readouterr().out
