"""Exports: the points of the gradebook, in the columns that Canvas and Moodle read."""

import csv
import re
import subprocess
import sys

import pytest
from nbgrader.api import Gradebook

from coursekit.cli import app
from coursekit.errors import InputError
from coursekit.grading.export import export_grades
from coursekit.grading.roster import import_roster
from tests.grading.conftest import copied

STUDENTS = """id,first_name,last_name,email
ada,Ada,"Love, lace",ada@example.org
bob,Bob,,
late,Li,Ng,
idle,Ida,Le,
"""


@pytest.fixture(scope="module")
def graded_course(toy_course, tmp_path_factory):
    """Ada is done, Bob's answer waits for a person, Li is late, Ida handed in nothing, Eve has no name."""
    folder = tmp_path_factory.mktemp("school")
    classroom = copied(toy_course, folder)
    course = classroom.course
    config = course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + 'c.LateSubmissionPlugin.penalty_method = "zero"\n')
    (folder / "students.csv").write_text(STUDENTS)
    import_roster(course, folder / "students.csv")
    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        book.update_or_create_assignment(classroom.slug, duedate="2030-01-01 00:00:00 UTC")
        with book.db.no_autoflush:  # as nbgrader does for an extension
            book.update_or_create_submission(classroom.slug, "idle")
        book.db.commit()
    classroom.hand_in("ada", mean="def mean(numbers):\n    return sum(numbers)")
    classroom.hand_in("bob", explain="Because groups differ.")
    (classroom.hand_in("late").parent / "timestamp.txt").write_text("2030-01-02 00:00:00 UTC")
    classroom.hand_in("eve", b"no notebook")
    classroom.grade()
    return course


@pytest.fixture
def school(graded_course, tmp_path):
    return copied(graded_course, tmp_path)


def exported(school, tmp_path, format, **options):
    path = tmp_path / f"{format}.csv"
    export_grades(school.course, path, format=format, **options)
    return list(csv.reader(path.read_text("utf-8").splitlines()))


def test_canvas_gets_its_columns_the_line_of_points_and_only_final_grades(school, tmp_path):
    head, points, *rows = exported(school, tmp_path, "canvas")
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "toy_adding"]
    # What Canvas' importer asks of a header.
    assert "Student" in head[0]
    assert "ID" in head[1]
    assert re.search(r"SIS\s+User\s+ID", head[2])
    assert re.search(r"SIS\s+Login\s+ID", head[3])
    assert "Section" in head[4]
    assert points == ["    Points Possible", "", "", "", "", "8"]
    assert sorted(row[:5] for row in rows if row[2] in ("ada", "bob", "eve")) == [
        ["Bob", "", "bob", "bob", ""],
        ["Love, lace, Ada", "", "ada", "ada", ""],
        ["eve", "", "eve", "eve", ""],
    ]
    assert {row[2]: row[5] for row in rows} == {"ada": "4", "bob": "", "eve": "0", "idle": "", "late": "0"}


def test_moodle_gets_people_by_id_number_and_a_line_only_where_there_is_a_grade(school, tmp_path):
    head, *rows = exported(school, tmp_path, "moodle")
    assert head == ["First name", "Last name", "ID number", "Email address", "toy_adding"]
    assert sorted(rows) == [
        ["", "", "eve", "", "0"],
        ["Ada", "Love, lace", "ada", "ada@example.org", "4"],
        ["Li", "Ng", "late", "", "0"],
    ]


def test_csv_says_everything_and_which_version_gave_the_grade(school, tmp_path):
    head, *rows = exported(school, tmp_path, "csv")
    table = {row[1]: dict(zip(head, row, strict=True)) for row in rows}
    assert table["late"]["score"] == "0"
    assert (table["late"]["raw_score"], table["late"]["late_penalty"]) == ("6", "6")
    assert table["late"]["handed_in"] == "2030-01-02 00:00:00 UTC"
    assert (table["bob"]["answers_waiting"], table["bob"]["score"]) == ("yes", "6")
    assert (table["idle"]["score"], table["idle"]["status"], table["idle"]["max_score"]) == ("", "", "8")
    assert (table["eve"]["status"], table["eve"]["score"]) == ("rejected", "0")
    assert re.fullmatch(r"\d+:[0-9a-f]{64}", table["ada"]["exercise_version"])
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", table["ada"]["graded_at"])


def test_one_student_or_exercise_can_be_chosen_and_a_wrong_name_is_refused(school, tmp_path):
    rows = exported(school, tmp_path, "moodle", students=["ada"], assignments=["toy_adding"])
    assert [row[2] for row in rows[1:]] == ["ada"]
    for wrong in ({"students": ["adda"]}, {"assignments": ["toy"]}):
        with pytest.raises(InputError, match="no such"):
            exported(school, tmp_path, "csv", **wrong)
    with pytest.raises(InputError, match="no such format"):
        exported(school, tmp_path, "excel")


def test_a_grade_that_a_person_finished_is_exported(school, tmp_path):
    with Gradebook(f"sqlite:///{school.course.gradebook}") as book:
        grade = book.find_grade("explain", school.slug, school.slug, "bob")
        grade.manual_score, grade.needs_manual_grade = 1.25, False
        book.db.commit()
    rows = exported(school, tmp_path, "canvas")
    assert {row[2]: row[5] for row in rows[2:]}["bob"] == "7.25"


@pytest.mark.slow
def test_nbgraders_own_command_takes_the_exporters(school):
    for name, columns in (("Canvas", 6), ("Moodle", 5), ("Csv", 14)):
        exporter = f"--exporter=coursekit.grading.export.{name}Export"
        command = [sys.executable, "-m", "nbgrader", "export", exporter, "--to", "out.csv"]
        done = subprocess.run(command, cwd=school.course.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows = list(csv.reader((school.course.root / "out.csv").read_text("utf-8").splitlines()))
        assert {len(row) for row in rows} == {columns}


def test_the_command_says_what_it_left_out(school, tmp_path):
    from typer.testing import CliRunner

    command = ["export", str(tmp_path / "out.csv"), "--format", "canvas", "--course", str(school.course.root)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "4 grades of 5 students" in done.output
    assert "1 are left out, as answers wait for a person: bob: toy_adding" in done.output


def test_the_command_says_which_grades_are_not_of_what_lies_there_now(school, tmp_path):
    from typer.testing import CliRunner

    command = ["export", str(tmp_path / "grades.csv"), "--course", str(school.course.root)]
    assert "coursekit grade" not in CliRunner().invoke(app, command).output
    school.hand_in("ada")
    said = CliRunner().invoke(app, command).output
    assert "1 submissions to toy_adding are new or changed" in said
    assert "coursekit grade toy_adding" in said
