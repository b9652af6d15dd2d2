"""Late work without a time: who counts as on time for want of one is told, and the time can be said later."""

import zipfile
from datetime import UTC, datetime

import pytest
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from coursekit.cli import app
from coursekit.errors import InputError
from coursekit.grading.collect import collect
from coursekit.grading.create import CONFIG, LATE_RULE
from coursekit.grading.handed_in import deadline, forget, may_be_late, note_time, unstamped
from coursekit.grading.moments import parse_time

MOODLE, CANVAS = "{}_9_assignsubmission_file/toy_adding.ipynb", "{}_{}9_1_toy_adding.ipynb"
PAST, FUTURE = "2020-11-20 23:59+00:00", "2200-01-01 00:00+00:00"


@pytest.fixture
def course(classroom):
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        for student in ("ada", "bob"):
            book.update_or_create_student(student, email="")
    return classroom.course


def due(course, moment):
    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        book.update_or_create_assignment("toy_adding", duedate=parse_time(moment))


@pytest.fixture
def taken_in(course, tmp_path):
    """Collect entries (name -> bytes), and return who may be late without a time that says so."""

    def run(entries, handed_in=None):
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        moment = parse_time(handed_in) if handed_in else None
        found = collect(course, "toy_adding", archive=tmp_path / "all.zip", handed_in=moment)
        return may_be_late(course, "toy_adding", found)

    return run


def test_the_deadline_is_read_as_nbgrader_wrote_it(course):
    assert deadline(course, "toy_adding") is None
    due(course, "2026-11-20 23:59+01:00")
    assert deadline(course, "toy_adding") == datetime(2026, 11, 20, 22, 59, tzinfo=UTC)


def test_what_is_new_or_changed_after_the_deadline_is_told_unless_its_time_is_said(course, taken_in):
    ada, bob = MOODLE.format("ada"), MOODLE.format("bob")
    assert taken_in({ada: b"1"}) == []  # no deadline, nobody is late
    due(course, FUTURE)
    assert taken_in({ada: b"2"}) == []
    due(course, PAST)
    assert taken_in({ada: b"2", bob: b"1"}) == ["bob"]
    assert taken_in({ada: b"3", bob: b"1"}) == ["ada"]
    assert taken_in({ada: b"4", bob: b"1"}, "2020-11-27 12:00+00:00") == []
    assert taken_in({ada: b"5", bob: b"1"}) == ["ada"]  # that time was the time of other work


def test_what_canvas_marks_as_late_is_told_and_what_it_does_not_mark_is_on_time(course, taken_in):
    entries = {CANVAS.format("ada", "LATE_"): b"1", CANVAS.format("bob", ""): b"1"}
    for _ in range(2):  # again, when nothing is new
        assert taken_in(entries) == ["ada"]
    due(course, PAST)
    assert taken_in(entries) == ["ada"]
    assert taken_in(entries, "2020-11-27 12:00+00:00") == []


def test_a_file_that_a_student_named_as_canvas_does_is_not_on_time_for_that(course, taken_in):
    due(course, PAST)
    assert taken_in({"ada/lab_1_2_toy_adding.ipynb": b"1"}) == ["ada"]
    taken_in({"ada/lab_1_2_toy_adding.ipynb": b"2"}, "2020-11-27 12:00+00:00")
    assert unstamped(course, "toy_adding") == []


def test_the_command_warns_loudly_says_how_many_and_what_to_do(course, tmp_path):
    due(course, PAST)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for student in ("ada", "bob"):
            archive.writestr(MOODLE.format(student), b"{}")
    command = ["course", "collect", str(course.root), "toy_adding", str(tmp_path / "all.zip")]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "WARNING: 2 marked as late, or new or changed after the deadline, COUNT AS ON TIME" in said.output
    assert "ada, bob\n" in said.output
    assert "coursekit course late --student WHO --handed-in TIME" in said.output
    assert "WARNING" not in CliRunner().invoke(app, command).output  # nothing is new


def test_a_time_said_later_makes_the_work_late_when_it_is_graded(classroom, course):
    due(course, PAST)
    classroom.hand_in("ada")
    classroom.hand_in("bob")
    command = ["course", "late", str(course.root), "toy_adding"]
    given = ["--student", "ada", "--handed-in", "2020-11-21 12:00+00:00"]
    said = CliRunner().invoke(app, [*command, *given])
    assert said.exit_code == 0, said.output
    assert "1 of 2 submissions have no time of handing in, and count as on time" in said.output
    classroom.grade()
    said = CliRunner().invoke(app, command).output
    assert "2020-11-21 12:00" in said
    assert "12.0 hours" in said
    for line in LATE_RULE:  # an old folder's configuration lacks them
        assert f"    {line}\n" in said
        assert f"# {line}\n" in CONFIG
    classroom.hand_in("ada", add="def add(left, right):\n    return right + left")
    forget(course.submitted("ada", "toy_adding"))
    classroom.grade("ada")
    assert "12.0 hours" not in CliRunner().invoke(app, command).output


@pytest.mark.parametrize("options", [["--student", "ada"], ["--handed-in", PAST], ["--until", PAST]])
def test_a_student_and_a_time_belong_together(course, options):
    assert (
        CliRunner().invoke(app, ["course", "late", str(course.root), "toy_adding", *options]).exit_code == 2
    )


def test_of_somebody_without_a_submission_nothing_is_noted_for_anybody(classroom, course, tmp_path):
    classroom.hand_in("ada")
    with pytest.raises(InputError, match=r"no submission to toy_adding.*'../bob'"):
        note_time(course, "toy_adding", students=["ada", "../bob"], moment=parse_time(PAST))
    assert unstamped(course, "toy_adding") == ["ada"]
    (tmp_path / "elsewhere").mkdir()
    course.submitted("eve", "toy_adding").parent.mkdir()
    course.submitted("eve", "toy_adding").symlink_to(tmp_path / "elsewhere")
    note_time(course, "toy_adding", students=["eve"], moment=parse_time(PAST))
    assert list((tmp_path / "elsewhere").iterdir()) == []
