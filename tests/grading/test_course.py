"""The course folder and its commands, run as a person runs them."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.create import add_exercise, init_course
from coursekit.grading.nbgrader_tools import NbgraderError
from coursekit.grading.sample import SampleClass, grade_sample

TOY = Path(__file__).with_name("toy_adding.py")
CLASS = """
toy_adding:
  ada: {answer: reference}
  bob: {answer: stub}
  cyd: {answer: adds_wrong}
  dan: {mishap: not_a_notebook, rejected: true}
  eve: {answer: reference, mishap: hard_exit, scores: 0}
  fay: {answer: reference, mishap: reordered_cells}
"""
ADDS_WRONG = '"""Adds absolute values."""\n# scores: {test_add_hidden: 0}\n\n# %% grade_id="add"\n'
ADDS_WRONG += "def add(left, right):\n    return abs(left) + abs(right)\n"


def coursekit(*arguments, folder=None, code="from coursekit.cli import main; main()"):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_course_goes_from_nothing_to_a_report_outside_the_checkout(tmp_path, toy_course):
    folder = tmp_path / "anywhere" / "my course"
    made = coursekit("course", "init", folder, "--from", TOY)
    assert made.returncode == 0, made.stderr
    assert "toy_adding" in made.stdout
    (tmp_path / "students.csv").write_text("id,first_name,last_name,email\nada,Ada,Lovelace,\n")
    assert "1 students added" in coursekit("course", "roster", folder, tmp_path / "students.csv").stdout
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(toy_course.release("toy_adding"), "lovelaceada_1_2_toy_adding.ipynb")
        archive.writestr("eve_2_3_toy_adding.pdf", "x")
    got = coursekit("course", "collect", folder, "toy_adding", tmp_path / "all.zip")
    assert "1 taken in (1 new, 0 changed, 0 as before), 1 refused" in got.stdout
    graded = coursekit("grade", "toy_adding", "--course", folder, "--report", tmp_path / "report.json")
    assert graded.returncode == 0, graded.stderr
    assert json.loads((tmp_path / "report.json").read_text())["submissions"][0]["student"] == "ada"
    status = coursekit("course", "status", folder)
    assert status.returncode == 0, status.stderr
    assert "toy_adding" in status.stdout


def test_a_second_init_keeps_what_is_there(classroom):
    course = classroom.course
    classroom.hand_in("ada")
    config = course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + "# mine\n")
    before = {
        p: p.stat().st_mtime_ns for p in course.root.rglob("*") if p.is_file() and p.name != "gradebook.db"
    }
    init_course(course.root, sources=[TOY])
    assert not add_exercise(course, TOY)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        init_course(tmp_path, sources=[])
    with pytest.raises(InputError, match="no course folder"):
        Course.open(tmp_path)


def test_errors_are_one_sentence_and_exit_2(classroom, tmp_path):
    for arguments in (
        ("grade", "nothing", "--course", classroom.course.root),
        ("grade", "toy_adding", "--course", tmp_path / "nowhere"),
        ("course", "roster", classroom.course.root, tmp_path / "no.csv"),
    ):
        done = coursekit(*arguments)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("coursekit: ")
        assert "Traceback" not in done.stderr


@pytest.fixture
def sample(tmp_path):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "class.yml").write_text(CLASS)
    (tmp_path / "answers" / "toy_adding").mkdir(parents=True)
    (tmp_path / "answers" / "toy_adding" / "adds_wrong.py").write_text(ADDS_WRONG)
    options = ("--class", tmp_path / "class" / "class.yml", "--solutions", TOY.parent)
    return ("course", "sample", tmp_path / "course", *options, "--answers", tmp_path / "answers")


@pytest.mark.slow
def test_a_sample_class_gets_its_known_scores_and_its_second_run_loads_nothing(sample, tmp_path):
    first = coursekit(*sample)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "6 of 6 scores are the known ones" in first.stdout
    gradebook = tmp_path / "course" / "gradebook.db"
    before = gradebook.stat().st_mtime_ns
    heavy = "{'nbgrader', 'nbformat', 'nbclient', 'jupytext', 'torch', 'tensorflow', 'zmq'}"
    code = "import sys\nfrom coursekit.cli import app\ntry:\n    app()\nexcept SystemExit as end:\n"
    code += f"    print('LOADED', sorted({heavy} & set(sys.modules)), 'END', end.code)"
    second = coursekit(*sample, code=code)
    assert "LOADED [] END 0" in second.stdout, second.stdout + second.stderr
    assert "6 of 6 scores are the known ones" in second.stdout
    assert gradebook.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_sample_class_with_another_score_than_known_fails(sample, tmp_path):
    wrong = ADDS_WRONG.replace("{test_add_hidden: 0}", "{}")
    (tmp_path / "answers" / "toy_adding" / "adds_wrong.py").write_text(wrong)
    done = coursekit(*sample)
    assert done.returncode == 1
    assert "6 !" in done.stdout
    assert "5 of 6 scores are the known ones" in done.stdout


NEW_CELLS = """
# %% nbgrader="tests" grade_id="test_more" points=1
expect_close(add(1, 1), 2, hint="add")
"""


def test_cells_cannot_come_or_go_under_submissions_and_the_error_says_so(classroom, tmp_path):
    classroom.hand_in("ada")
    classroom.grade()
    changed = tmp_path / "toy_adding.py"
    changed.write_text(TOY.read_text() + NEW_CELLS)
    with pytest.raises(NbgraderError, match="Cannot add or remove cells"):
        init_course(classroom.course.root, sources=[changed])
    init_course(classroom.course.root, sources=[TOY])  # the way back
    assert classroom.grade()["ada"].score == 6


@pytest.mark.slow
def test_a_sample_class_starts_over_when_its_exercise_got_new_cells(tmp_path):
    (tmp_path / "class.yml").write_text("toy_adding:\n  ada: {answer: reference}\n")
    source = tmp_path / "sources" / "toy_adding.py"
    source.parent.mkdir()
    source.write_text(TOY.read_text())
    sample = SampleClass(tmp_path / "class.yml", source.parent, tmp_path)
    assert grade_sample(tmp_path / "course", sample)[0].result.score == 6
    source.write_text(TOY.read_text() + NEW_CELLS)
    (outcome,) = grade_sample(tmp_path / "course", sample)
    assert outcome.as_expected
    assert outcome.result.score == 7
