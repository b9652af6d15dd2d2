"""What is not this assignment's or not this course's: other exercises' notebooks, unknown students."""

import copy

import pytest
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from coursekit.cli import app
from coursekit.errors import InputError
from coursekit.grading.export import export_grades
from coursekit.grading.intake import Answers, RejectedError, reject_other_exercise

KNOWN = {"setup", "train", "test_train"}


def answers(*graded, slug=None):
    by_id = {grade_id: [] for grade_id in ("setup", "train", *graded)}
    return Answers(by_id, graded=frozenset(graded), slug=slug)


def test_a_notebook_that_says_it_is_another_exercises_is_rejected():
    with pytest.raises(RejectedError, match="this is the notebook of other"):
        reject_other_exercise(answers("test_train", slug="other"), slug="mine", known=KNOWN)


@pytest.mark.parametrize(("said", "slug"), [(None, "mine"), (None, None), ("other", None)])
def test_without_a_slug_most_foreign_tests_are_another_exercise(said, slug):
    with pytest.raises(RejectedError, match="another exercise's"):
        reject_other_exercise(answers("test_train", "a", "b", slug=said), slug=slug, known=KNOWN)
    reject_other_exercise(answers("test_train", "a", slug=said), slug=slug, known=KNOWN)


def test_an_earlier_state_of_the_exercise_is_not_another_one():
    assert reject_other_exercise(answers("a", "b", slug="mine"), slug="mine", known=KNOWN) is None
    with pytest.raises(RejectedError):  # the same cells with nobody to vouch for them
        reject_other_exercise(answers("a", "b"), slug="mine", known=KNOWN)


@pytest.mark.parametrize("anonymous", [False, True])
def test_another_exercises_notebook_with_shared_names_is_rejected_and_not_graded(classroom, anonymous):
    other = copy.deepcopy(classroom.notebook(**classroom.good))
    other["metadata"]["coursekit"]["slug"] = "toy_taking"
    for cell in other["cells"]:
        words = cell["metadata"].get("nbgrader", {})
        if words.get("grade"):
            words["grade_id"] += "_taking"
    if anonymous:
        del other["metadata"]["coursekit"]
    classroom.hand_in("ada", other)
    result = classroom.grade()["ada"]
    reason = "another exercise's" if anonymous else "this is the notebook of toy_taking"
    assert (result.status, result.score) == ("rejected", 0)
    assert reason in result.flags[0]
    assert reason.split("'")[0] in classroom.course.feedback("ada", "toy_adding").read_text()


def test_an_unknown_student_is_refused_with_close_ids_and_nothing_is_written(classroom):
    classroom.hand_in("ada.lovelace")
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        book.add_student("grace.hopper")
    for wrong, close in (("ada.lovelac", "ada.lovelace"), ("gracehopper", "grace.hopper")):
        with pytest.raises(InputError, match=f"no such student.*did you mean {close}"):
            classroom.grade("ada.lovelace", wrong)
    assert not list((classroom.course.root / "feedback").rglob("*.html"))
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        assert [student.id for student in book.students] == ["grace.hopper"]


ODD = (" lead", "trail ", "[bold]x[", "a\nb", "a*a", "\udcff")


def test_a_folder_whose_name_nbgrader_does_not_find_is_told_and_is_nobodys(classroom):
    for student in ("ada", "Ada Lovelace", "=1+1", *ODD):
        classroom.hand_in(student)
    command = ["grade", "toy_adding", "--course", str(classroom.course.root), "--allow-unsandboxed"]
    said = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.exception
    assert f"{len(ODD) + 3} submissions: {len(ODD)} rejected, 3 graded" in said.output
    assert "rejected:  lead, [bold]x[, a?b, a*a, trail , ?\n" in said.output
    assert "that no id can have: rename it to the id" in " ".join(said.output.split())
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as book:
        assert sorted(student.id for student in book.students) == ["=1+1", "Ada Lovelace", "ada"]
    for student in ("ada", "Ada Lovelace", "=1+1"):
        assert classroom.course.feedback(student, "toy_adding").is_file()
    for format in ("csv", "canvas", "moodle"):
        export_grades(classroom.course, classroom.course.root / "out.csv", format=format)
        assert ",'=1+1," in (classroom.course.root / "out.csv").read_text()
        assert ",=1+1" not in (classroom.course.root / "out.csv").read_text()


def test_check_takes_a_fraction_of_a_second_and_no_less_than_a_whole_one(classroom):
    path = classroom.hand_in("ada")
    result = CliRunner().invoke(app, ["check", str(path), "--cell-seconds", "20.5"])
    assert result.exit_code == 0, result.exception
    assert "points so far" in result.output
    refused = CliRunner().invoke(app, ["check", str(path), "--cell-seconds", "0.5"])
    assert refused.exit_code == 2
