"""nbgrader itself on the same course folder: its commands work, and its scores are ours where it is right."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from coursekit.grading.course import Course
from coursekit.grading.mishaps import MISHAPS
from coursekit.grading.nbgrader_tools import load_config

# All that `coursekit course init` sets is left out: this is nbgrader as it comes.
STOCK = 'c = get_config()\nc.CourseDirectory.course_id = "course"\nc.Execute.shutdown_kernel = "immediate"\n'
HONEST = {
    "perfect": {},
    "stub": {"add": None, "mean": None},
    "wrong": {"add": "def add(left, right):\n    return abs(left) + abs(right)"},
    "partial": {"mean": "def mean(numbers):\n    return sum(numbers)"},
    "crashes": {"add": "raise ValueError('no')"},
    "syntax": {"mean": "def mean(numbers:\n"},
    "explains": {"explain": "Because groups differ in size."},
}
WARNS = "import warnings\ndef add(left, right):\n    warnings.warn('careful')\n    return left + right"


def nbgrader(folder, *arguments):
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=250)


def cell_scores(folder):
    """student -> grade_id -> what nbgrader's machine gave, from its gradebook."""
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        return {
            submission.student.id: {grade.name: grade.auto_score for grade in submission.notebooks[0].grades}
            for submission in book.assignment_submissions("toy_adding")
        }


def hand_in_honest(classroom):
    for student, answers in HONEST.items():
        changed = {key: value for key, value in answers.items() if value is not None}
        kept = {key: value for key, value in classroom.good.items() if key not in answers}
        classroom.hand_in(student, classroom.notebook(**kept, **changed))


@pytest.fixture
def stock(classroom, tmp_path):
    """Make a copy of the course folder for nbgrader alone, with or without our configuration."""

    def copy(config=None):
        folder = tmp_path / "stock"
        shutil.copytree(
            classroom.course.root, folder, ignore=shutil.ignore_patterns("autograded", "feedback")
        )
        (folder / "gradebook.db").unlink()
        if config is not None:
            (folder / "nbgrader_config.py").write_text(config)
        made = nbgrader(folder, "generate_assignment", "toy_adding", "--force")
        assert made.returncode == 0, made.stderr
        return folder

    return copy


@pytest.mark.slow
def test_honest_submissions_get_the_scores_of_stock_nbgrader_to_the_point(classroom, stock):
    hand_in_honest(classroom)
    ours = {
        student: {cell.grade_id: cell.score for cell in result.cells}
        for student, result in classroom.grade().items()
    }
    folder = stock(STOCK)
    done = nbgrader(folder, "autograde", "toy_adding")
    assert done.returncode == 0, done.stderr
    assert cell_scores(folder) == ours
    assert ours["partial"]["test_mean"] == 1  # the control: there is something to differ in
    assert ours["explains"]["explain"] is None


@pytest.mark.slow
def test_where_stock_nbgrader_is_wrong_and_how(classroom, stock):
    """Each difference is a fault of stock's, and our configuration mends it for `nbgrader autograde` too."""
    good = json.dumps(classroom.notebook(**classroom.good)).encode()
    classroom.hand_in("a_warns", add=WARNS)
    skipped = classroom.notebook()
    for cell in skipped["cells"]:
        cell["metadata"]["tags"] = ["skip-execution"]
    classroom.hand_in("b_skips", skipped)
    classroom.hand_in("c_hard_exit", mean="import os\nos._exit(1)")
    classroom.hand_in("d_duplicated", MISHAPS["duplicated_cells"](good))
    classroom.hand_in("e_behind", add="def add(left, right):\n    return left")
    full, none = classroom.full, classroom.none
    right = {
        "a_warns": full,
        "b_skips": none,
        "c_hard_exit": {**full, "test_mean": 0},
        "d_duplicated": full,
        "e_behind": {**none, "test_mean": 3},
    }
    assert {s: classroom.auto_scores(r) for s, r in classroom.grade().items()} == right

    folder = stock(STOCK)
    done = nbgrader(folder, "autograde", "toy_adding")
    scores = cell_scores(folder)
    assert done.returncode != 0
    assert (scores["a_warns"]["test_add"], scores["b_skips"]["test_add"]) == (0, 2)
    assert not list((folder / "autograded" / "c_hard_exit").rglob("*.ipynb"))
    assert "e_behind" not in scores  # the duplicated cell before it stopped the batch

    shutil.rmtree(folder)
    mended = stock()
    done = nbgrader(mended, "autograde", "toy_adding")
    assert done.returncode == 0, done.stderr
    got = {s: {key: cells[key] for key in full} for s, cells in cell_scores(mended).items()}
    assert got == right


@pytest.mark.slow
def test_nbgraders_commands_work_on_a_folder_that_we_graded(classroom):
    classroom.hand_in("ada", add="def add(left, right):\n    return 0")
    classroom.grade()
    folder = classroom.course.root
    exported = nbgrader(folder, "export")
    assert exported.returncode == 0, exported.stderr
    (row,) = csv.DictReader((folder / "grades.csv").read_text().splitlines())
    got = [row[key] for key in ("assignment", "student_id", "score", "max_score")]
    assert got == ["toy_adding", "ada", "3.0", "8.0"]
    again = nbgrader(folder, "autograde", "toy_adding", "--force")
    assert again.returncode == 0, again.stderr
    assert cell_scores(folder)["ada"]["test_mean"] == 3
    page = classroom.course.feedback("ada", "toy_adding")
    page.unlink()
    feedback = nbgrader(folder, "generate_feedback", "toy_adding", "--force")
    assert feedback.returncode == 0, feedback.stderr
    assert "hidden tests: 0 of 1 points" in page.read_text()
    assert "negative numbers as well" not in page.read_text()
    listed = nbgrader(folder, "db", "student", "list")
    assert "ada" in listed.stdout + listed.stderr


@pytest.mark.slow
def test_nbgrader_autograde_opens_no_pipe_and_follows_no_link(classroom):
    folder = classroom.course.root
    linked = classroom.hand_in("bob")
    linked.unlink()
    linked.symlink_to(classroom.hand_in("carol"))
    settings = (folder / "nbgrader_config.py").read_text()
    without = "\nc.Autograde.pre_convert_hook = lambda **_: None\n"
    (folder / "nbgrader_config.py").write_text(settings + without)
    nbgrader(folder, "autograde", "toy_adding", "--student=bob")
    assert cell_scores(folder)["bob"]["test_add"] == 2  # another's, where nothing is asked before

    (folder / "nbgrader_config.py").write_text(settings)
    shutil.rmtree(folder / "autograded/bob")
    pipe = classroom.hand_in("adam")
    pipe.unlink()
    os.mkfifo(pipe)
    said = nbgrader(folder, "autograde", "toy_adding").stderr
    assert "adam: rejected: toy_adding.ipynb is not a regular file" in said
    assert "bob: rejected: toy_adding.ipynb cannot be read: a link" in said
    assert [path.name for path in (folder / "autograded").glob("*/*/*.ipynb")] == ["toy_adding.ipynb"]
    assert cell_scores(folder)["carol"]["test_add"] == 2


def test_the_checkout_and_a_course_folder_are_configured_by_one_source(classroom):
    ours = load_config(classroom.course)
    checkout = load_config(Course(Path(__file__).resolve().parents[2]))
    assert checkout.CourseDirectory.source_directory == "solutions"
    assert checkout.CourseDirectory.release_directory == "exercises"
    for config in (ours, checkout):
        assert "coursekit.grading.feedback.HideHiddenTests" in config.GenerateFeedback.preprocessors
        assert config.HTMLExporter.sanitize_html
    assert (ours.GenerateFeedback, ours.HTMLExporter) == (checkout.GenerateFeedback, checkout.HTMLExporter)


def test_what_an_instructor_sets_below_our_settings_holds(classroom):
    path = classroom.course.root / "nbgrader_config.py"
    path.write_text(path.read_text() + "c.HTMLExporter.sanitize_html = False\n")
    assert load_config(classroom.course).HTMLExporter.sanitize_html is False
