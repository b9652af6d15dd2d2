"""Feedback goes back to the LMS: collected, graded, packed under the names that the LMS itself reads."""

import json
import zipfile

import pytest
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from coursekit.cli import app
from coursekit.errors import InputError
from coursekit.grading import feedback_zip
from coursekit.grading.collect import collect
from coursekit.grading.feedback_zip import NO_NAME, NOT_GRADED, TOO_LARGE, WAITING, pack_feedback
from coursekit.grading.roster import import_roster
from tests.grading.conftest import GOOD, copied

ROSTER = (
    "id,first_name,last_name\nada,Ada,Lovelace\nzoe,Zoë,de la Cruz\neve,Eve,O'Neill\nuna,Una,Li\nbob,Bob,B\n"
)
# What Moodle from 4.1 on, Moodle before it, Moodle without folders, and Canvas name the submissions of three.
SHAPES = {
    "moodle": (
        "Ada Lovelace_1234_assignsubmission_file/toy_adding.ipynb",
        "Zoë de la Cruz_99_assignsubmission_file/week 1/toy_adding.ipynb",
        "Eve ONeill_7_assignsubmission_file/toy_adding.ipynb",
    ),
    "moodle before 4.1": (
        "Ada Lovelace_1234_assignsubmission_file_/toy_adding.ipynb",
        "Zoë de la Cruz_99_assignsubmission_file_/toy_adding (2).ipynb",
        "Eve ONeill_7_assignsubmission_file_/toy_adding.ipynb",
    ),
    "moodle without folders": (
        "Ada Lovelace_1234_assignsubmission_file_toy_adding.ipynb",
        "Zoë de la Cruz_99_assignsubmission_file_toy_adding.ipynb",
        "Eve ONeill_7_assignsubmission_file_toy_adding.ipynb",
    ),
    "canvas": (
        "lovelaceada_12_345_toy_adding.ipynb",
        "delacruzzoë_LATE_13_346_toy_adding-1.ipynb",
        "oneilleve_14_347_toy_adding.ipynb",
    ),
}
BACK = {
    "moodle": [
        "Ada Lovelace_1234_assignsubmission_file/toy_adding.html",
        "Eve ONeill_7_assignsubmission_file/toy_adding.html",
        "Zoë de la Cruz_99_assignsubmission_file/toy_adding.html",
    ],
    "moodle before 4.1": [
        "Ada Lovelace_1234_assignsubmission_file_/toy_adding.html",
        "Eve ONeill_7_assignsubmission_file_/toy_adding.html",
        "Zoë de la Cruz_99_assignsubmission_file_/toy_adding.html",
    ],
    "moodle without folders": [
        "Ada Lovelace_1234_assignsubmission_file_toy_adding.html",
        "Eve ONeill_7_assignsubmission_file_toy_adding.html",
        "Zoë de la Cruz_99_assignsubmission_file_toy_adding.html",
    ],
    "canvas": [
        "lovelaceada_12_345_toy_adding.html",
        "oneilleve_14_347_toy_adding.html",
        "delacruzzoë_LATE_13_346_toy_adding.html",
    ],
}
NUMBERS = {"moodle": (1234, 7, 99), "canvas": ((12, 345), (14, 347), (13, 346))}


def moodle_takes(path):
    """The participant to whom Moodle gives a file of the zip, and the file's path there.

    Source: moodle/moodle, mod/assign/feedback/file/importziplib.php, is_valid_filename_for_import.
    """
    parts = path.split("/")
    while parts:
        words = parts.pop(0).split("_", 4)
        if len(words) > 3 and words[1].isdigit() and words[2:4] == ["assignsubmission", "file"]:
            return int(words[1]), "/".join([*words[4:], *parts]).lstrip("/")
    return None


def canvas_takes(path):
    """The numbers of the user and of the uploaded file on which Canvas comments.

    Source: instructure/canvas-lms, app/models/abstract_assignment.rb, infer_comment_context_from_filename.
    """
    words = [word for word in path.rpartition("/")[2].split("_") if word != "LATE"]
    numbers = [int(word) for word in words if word.isdigit()][:2]
    return None if words[-1].startswith("link") or len(numbers) < 2 else tuple(numbers)


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def works(classroom):
    """Ada has all points, Zoë not, Eve hands in no notebook."""
    wrong = classroom.notebook(**{**GOOD, "add": "def add(left, right):\n    return left - right"})
    return json.dumps(classroom.notebook(**GOOD)).encode(), json.dumps(wrong).encode(), b"%PDF"


@pytest.fixture(scope="module")
def graded_course(toy_course, tmp_path_factory):
    """Collected from Moodle, but for Una, whose answer waits, and Bob, whose work was put in by hand."""
    folder = tmp_path_factory.mktemp("way_back")
    classroom = copied(toy_course, folder)
    (folder / "students.csv").write_text(ROSTER)
    import_roster(classroom.course, folder / "students.csv")
    una = json.dumps(classroom.notebook(**GOOD, explain="Because groups differ.")).encode()
    entries = dict(zip(SHAPES["moodle"], works(classroom), strict=True))
    entries["Una Li_8_assignsubmission_file/toy_adding.ipynb"] = una
    collect(classroom.course, "toy_adding", archive=zipped(folder / "all.zip", entries))
    classroom.hand_in("bob")
    classroom.grade()
    return classroom.course


@pytest.fixture
def classroom(graded_course, tmp_path):
    return copied(graded_course, tmp_path)


def pages(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_collected_goes_back_under_names_that_the_lms_reads(classroom, tmp_path, shape):
    entries = dict(zip(SHAPES[shape], works(classroom), strict=True))
    collect(classroom.course, "toy_adding", archive=zipped(tmp_path / "again.zip", entries))
    packed = pack_feedback(classroom.course, "toy_adding", tmp_path / "back.zip")
    found = pages(tmp_path / "back.zip")
    assert packed.students == ["ada", "eve", "zoe"]
    assert list(found) == BACK[shape]
    takes, numbers = (canvas_takes, "canvas") if shape == "canvas" else (moodle_takes, "moodle")
    taken = [takes(name) for name in found]
    assert tuple(each if shape == "canvas" else each[0] for each in taken) == NUMBERS[numbers]
    assert shape == "canvas" or {file for _, file in taken} == {"toy_adding.html"}
    ada, eve, zoe = found.values()
    assert "6 / 8" in " ".join(ada.split()) or "6.0 / 8.0" in ada
    assert "not valid JSON" in eve
    assert ada != zoe


def test_who_is_not_in_the_zip_is_said_with_the_reason_and_how_many(classroom, tmp_path):
    classroom.hand_in("zoe", mean="def mean(numbers):\n    return 0")
    said = CliRunner().invoke(
        app, ["course", "feedback", str(classroom.course.root), "toy_adding", str(tmp_path / "back.zip")]
    )
    assert said.exit_code == 0, said.output
    assert "2 feedback pages in " in said.output
    for student, reason in (("bob", NO_NAME), ("zoe", NOT_GRADED), ("una", WAITING)):
        assert f"NOT IN IT are 1, {reason}: {student}\n" in said.output
    assert [moodle_takes(name)[0] for name in pages(tmp_path / "back.zip")] == [1234, 7]


def test_where_nothing_can_go_back_nothing_is_written(classroom, tmp_path):
    (classroom.course.root / "lms_names" / "toy_adding.json").unlink()
    with pytest.raises(InputError, match="4: as no name of the LMS's is known"):
        pack_feedback(classroom.course, "toy_adding", tmp_path / "back.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["course"]


def test_a_name_can_be_added_by_hand_and_one_that_no_lms_gives_is_refused(classroom, tmp_path):
    path = classroom.course.root / "lms_names" / "toy_adding.json"
    names = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**names, "bob": "Bob B_5_assignsubmission_file/"}))
    pack_feedback(classroom.course, "toy_adding", tmp_path / "back.zip")
    assert (5, "toy_adding.html") in map(moodle_takes, pages(tmp_path / "back.zip"))
    for wrong in ("../../", "bob/", "", None, "Bob B_5_assignsubmission_file/../../x"):
        path.write_text(json.dumps({**names, "bob": wrong}))
        with pytest.raises(InputError, match="something else than names"):
            pack_feedback(classroom.course, "toy_adding", tmp_path / "back.zip")
    path.write_text("{")
    archive = zipped(tmp_path / "more.zip", {SHAPES["canvas"][0]: b"another"})
    for run in (pack_feedback, lambda *where: collect(*where[:2], archive=archive)):
        with pytest.raises(InputError, match="cannot be read"):
            run(classroom.course, "toy_adding", tmp_path / "back.zip")
    submitted = classroom.course.submitted("ada", "toy_adding") / "toy_adding.ipynb"
    assert submitted.read_bytes() != b"another"


def test_the_same_pages_are_the_same_zip_and_tell_nothing_of_where_they_were_made(classroom, tmp_path):
    for name in ("first.zip", "second.zip"):
        pack_feedback(classroom.course, "toy_adding", tmp_path / name)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    for page in pages(tmp_path / "first.zip").values():
        assert str(tmp_path) not in page
        assert str(classroom.course.root.name + "/") not in page


def test_points_that_the_formgrader_gave_since_are_on_the_page_that_goes_back(classroom, tmp_path):
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        grade = book.find_grade("explain", "toy_adding", "toy_adding", "una")
        grade.manual_score, grade.needs_manual_grade = 1.25, False
        book.db.commit()
    packed = pack_feedback(classroom.course, "toy_adding", tmp_path / "back.zip")
    assert "una" in packed.students
    assert "7.25" in pages(tmp_path / "back.zip")["Una Li_8_assignsubmission_file/toy_adding.html"]


def test_a_page_that_no_lms_would_take_is_left_out(classroom, tmp_path, monkeypatch):
    sizes = {
        student: classroom.course.feedback(student, "toy_adding").stat().st_size for student in ("ada", "eve")
    }
    assert sizes["ada"] > sizes["eve"]
    monkeypatch.setattr(feedback_zip, "MAX_PAGE_BYTES", sizes["eve"])
    packed = pack_feedback(classroom.course, "toy_adding", tmp_path / "back.zip")
    assert (packed.students, packed.left_out[TOO_LARGE]) == (["eve"], ["ada", "zoe"])
