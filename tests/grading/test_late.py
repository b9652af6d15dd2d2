"""Late work: deadlines, extensions, and penalties that follow the points and the times of now."""

import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime

import pytest
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from coursekit.cli import app
from coursekit.errors import InputError
from coursekit.grading import journal
from coursekit.grading.by_hand import OpenAnswers, read_questions
from coursekit.grading.collect import collect
from coursekit.grading.export import export_grades
from coursekit.grading.late import change_and_read
from coursekit.grading.moments import parse_time
from tests.grading.conftest import GOOD, Classroom, copied

DUE, LATE = "2026-11-20 23:00+00:00", "2026-11-22 12:00:00 UTC"  # a day and a half: two days begun
RULE = """
c.AssignLatePenalties.plugin_class = "coursekit.grading.late.PercentPerDay"
c.PercentPerDay.percent = 10
"""


@pytest.fixture(scope="module")
def graded_course(toy_course, tmp_path_factory):
    """Ada is late with an answer to be read, Bob in time, Ida has handed in nothing."""
    classroom = copied(toy_course, tmp_path_factory.mktemp("late"))
    config = classroom.course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + RULE)
    change_and_read(classroom.course, classroom.slug, due=DUE)
    for student, time in (("ada", LATE), ("bob", "2026-11-20 22:59:00 UTC")):
        (classroom.hand_in(student, explain="Groups differ.").parent / "timestamp.txt").write_text(time)
    classroom.grade()
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        book.update_or_create_student("ida", email="")
    return classroom.course


@pytest.fixture
def course(graded_course, tmp_path):
    return copied(graded_course, tmp_path).course


def scores(course, tmp_path):
    sheet = export_grades(course, tmp_path / "grades.csv")
    return {student: (grade.score, grade.penalty) for (student, _), grade in sheet.grades.items()}


def test_each_day_begun_costs_its_part_of_the_points(course, tmp_path):
    assert scores(course, tmp_path) == {"ada": (pytest.approx(4.8), pytest.approx(1.2)), "bob": (6, 0)}


def test_points_that_a_person_gives_later_are_late_too(course, tmp_path):
    answers = OpenAnswers(course, "toy_adding", question=read_questions(course, "toy_adding")["explain"])
    answers.store("ada", points=2, comment="")
    answers.close()
    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        assert book.find_submission("toy_adding", "ada").late_submission_penalty == pytest.approx(1.6)
    assert scores(course, tmp_path)["ada"] == (pytest.approx(6.4), pytest.approx(1.6))


def test_points_of_the_formgrader_are_late_too_when_they_are_exported(course, tmp_path):
    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        grade = book.find_grade("explain", "toy_adding", "toy_adding", "ada")
        grade.manual_score, grade.needs_manual_grade = 2, False
        book.db.commit()
    assert scores(course, tmp_path)["ada"] == (pytest.approx(6.4), pytest.approx(1.6))


def test_nbgraders_own_feedback_after_the_formgrader_shows_the_penalty_of_now(course):
    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        grade = book.find_grade("explain", "toy_adding", "toy_adding", "ada")
        grade.manual_score, grade.needs_manual_grade = 2, False
        book.db.commit()
    command = [sys.executable, "-m", "nbgrader", "generate_feedback", "toy_adding", "--force"]
    subprocess.run(command, cwd=course.root, check=True, capture_output=True, timeout=120)
    assert "6.4" in course.feedback("ada", "toy_adding").read_text()


def test_an_extension_given_after_grading_takes_the_penalty_off_the_grade_and_the_page(course, tmp_path):
    page = course.feedback("ada", "toy_adding")
    assert "4.8" in page.read_text()
    _, late = change_and_read(course, "toy_adding", students=["ada", "ida"], until="2026-11-25 00:00+00:00")
    assert [(one.student, one.seconds_late) for one in late] == [("ada", 0), ("ida", 0)]
    assert scores(course, tmp_path)["ada"] == (6, 0)
    assert "4.8" not in page.read_text()


def test_a_deadline_that_moves_leaves_extensions_where_they_end(course):
    change_and_read(course, "toy_adding", students=["ada"], until="2026-11-22 00:00+00:00")
    for due in ("2026-11-18 00:00+00:00", "2026-11-21 00:00+00:00"):
        _, late = change_and_read(course, "toy_adding", due=due)
        assert {one.student: one.seconds_late for one in late}["ada"] == 12 * 3600


def test_an_extension_for_who_has_handed_in_nothing_makes_no_answer_wait(course):
    waiting = journal.waiting(course.gradebook, "toy_adding")
    change_and_read(course, "toy_adding", students=["ida"], until="2026-11-30 12:00+00:00")
    assert journal.waiting(course.gradebook, "toy_adding") == waiting
    classroom = Classroom(course)
    classroom.hand_in("ida", explain="Groups differ.")
    classroom.grade("ida")
    assert journal.waiting(course.gradebook, "toy_adding") == {*waiting, ("ida", "explain")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"due": "yesterday"}, "no date and time"),
        ({"students": ["adda"], "until": "2026-11-25"}, "no such student"),
        ({"students": ["ada"], "until": "2026-11-01"}, "before the deadline"),
    ],
)
def test_wrong_words_are_refused(course, options, said):
    with pytest.raises(InputError, match=said):
        change_and_read(course, "toy_adding", **options)


def test_an_offset_is_heeded():
    assert parse_time("2026-11-20 23:00+01:00") == datetime(2026, 11, 20, 22, tzinfo=UTC)


def test_the_command_shows_who_is_late_and_what_it_costs(course):
    change_and_read(course, "toy_adding", students=["ida"], until="2026-11-25 00:00+00:00")
    shown = CliRunner().invoke(app, ["course", "late", str(course.root), "toy_adding"], env={"TZ": "UTC"})
    assert shown.exit_code == 0
    assert "ada       2026-11-22 12:00   -                  37.0 hours   -1.2" in shown.output
    assert "ida       -                  2026-11-25 00:00   no           0" in shown.output
    assert "bob" not in shown.output
    assert "2026-11-20 23:00 UTC" in shown.output
    assert "not known yet" not in shown.output


def test_before_they_are_graded_nobody_is_said_to_be_in_time(course):
    (Classroom(course).hand_in("eve").parent / "timestamp.txt").write_text(LATE)
    shown = CliRunner().invoke(app, ["course", "late", str(course.root), "toy_adding"])
    assert "eve" not in shown.output
    assert "not known yet of 1 to be graded: whether they are late" in shown.output


MOODLE, CANVAS = "{}_9_assignsubmission_file_/toy_adding.ipynb", "{}_{}9_1_toy_adding.ipynb"


def times(classroom, tmp_path, entries, handed_in):
    """Collect entries (name -> data), and return whose submissions have which time."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, json.dumps(data))
    moment = parse_time(handed_in) if handed_in else None
    collect(classroom.course, "toy_adding", archive=tmp_path / "all.zip", add_unknown=True, handed_in=moment)
    stamps = sorted((classroom.course.root / "submitted").rglob("timestamp.txt"))
    return {path.parent.parent.name: path.read_text().strip() for path in stamps}


@pytest.fixture
def enrolled(classroom):
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        for student in ("ada", "bob"):
            book.update_or_create_student(student, email="")
    return classroom


def test_what_is_new_or_changed_next_week_gets_that_time_and_nothing_else(enrolled, tmp_path):
    ada, bob = MOODLE.format("ada"), MOODLE.format("bob")
    good = enrolled.notebook(**GOOD)
    assert times(enrolled, tmp_path, {ada: good}, None) == {}
    second = {ada: good, bob: good}
    assert times(enrolled, tmp_path, second, "2026-11-27 12:00+00:00") == {"bob": "2026-11-27 12:00:00 UTC"}
    third = {ada: enrolled.notebook(), bob: good}
    assert times(enrolled, tmp_path, third, "2026-12-04 12:00+00:00") == {
        "ada": "2026-12-04 12:00:00 UTC",
        "bob": "2026-11-27 12:00:00 UTC",
    }


def test_of_canvas_only_what_it_marks_as_late_gets_a_time_also_when_it_was_taken_in_before(
    enrolled, tmp_path
):
    entries = {CANVAS.format("ada", "LATE_"): enrolled.notebook(), CANVAS.format("bob", ""): {"cells": []}}
    assert times(enrolled, tmp_path, entries, None) == {}
    assert times(enrolled, tmp_path, entries, "2026-11-27 12:00+00:00") == {"ada": "2026-11-27 12:00:00 UTC"}
