"""Intake: anything may arrive; each thing is read or refused with a reason, and nothing is followed."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coursekit.grading.intake import MAX_BYTES, RejectedError, fingerprint, parse_answers, read_submission


def notebook(*cells):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)}).encode()


def cell(grade_id, source, cell_type="code"):
    return {"cell_type": cell_type, "metadata": {"nbgrader": {"grade_id": grade_id}}, "source": source}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"%PDF-1.7 \xe2\xe3", "not valid JSON"),
        (b'{"cells": [', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1, 2]", "no object"),
        (b'"text"', "no object"),
        (b"{}", "without a list of cells"),
        (b'{"cells": {"a": 1}}', "without a list of cells"),
        (b'{"worksheets": [3]}', "without a list of cells"),
        (b'{"cells": [' + b"9" * 5000 + b"]}", "not valid JSON"),
        (b'{"cells": [' + b"[]," * 2_000_000 + b"0]}", "too many lists and objects"),
    ],
)
def test_what_is_no_notebook_is_rejected_with_its_reason(data, reason):
    with pytest.raises(RejectedError, match=reason):
        parse_answers(data)


def test_answers_are_found_by_grade_id_in_the_notebooks_order():
    answers = parse_answers(
        notebook(cell("b", "1"), {"cell_type": "raw"}, cell("a", ["2\n", "3"]), cell("b", "4"))
    )
    assert {key: [answer.source for answer in given] for key, given in answers.by_id.items()} == {
        "b": ["1", "4"],
        "a": ["2\n3"],
    }
    assert [answer.grade_id for answer in answers.order] == ["b", "a", "b"]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        "text",
        [],
        {"metadata": 3},
        {"metadata": {"nbgrader": []}},
        {"metadata": {"nbgrader": {"grade_id": 7}}},
    ],
)
def test_cells_of_wrong_types_are_passed_over(odd):
    answers = parse_answers(notebook(odd, cell("a", "1")))
    assert list(answers.by_id) == ["a"]


@pytest.mark.parametrize(("source", "text"), [(None, ""), (5, ""), (["a", 5, "b"], "ab"), ("a\r\nb", "a\nb")])
def test_a_source_of_a_wrong_type_is_empty_text(source, text):
    assert parse_answers(notebook(cell("a", source))).by_id["a"][0].source == text


def test_a_lone_surrogate_becomes_text_that_a_kernel_can_be_sent():
    source = parse_answers(notebook(cell("a", "x = '\ud800'"))).by_id["a"][0].source
    assert source.encode("utf-8") == b"x = '?'"


def test_format_3_notebooks_are_understood():
    old = {"cell_type": "code", "input": "1", "metadata": {"nbgrader": {"grade_id": "a"}}}
    data = json.dumps({"nbformat": 3, "worksheets": [{"cells": [old]}]}).encode()
    assert parse_answers(data).by_id["a"][0].source == "1"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cells", "metadata", "nbgrader", "grade_id", "source"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@given(json_values)
def test_no_json_value_makes_intake_fail_otherwise_than_by_rejecting(value):
    try:
        order = parse_answers(json.dumps(value).encode()).order
    except RejectedError as error:
        order = (str(error),)
    assert all(isinstance(grade_id, str) for grade_id in order)


@given(st.binary(max_size=200))
def test_no_bytes_make_intake_fail_otherwise_than_by_rejecting(data):
    with pytest.raises(RejectedError, match="not a notebook"):
        parse_answers(data)


def test_a_missing_submission_is_rejected(classroom):
    with pytest.raises(RejectedError, match="missing"):
        read_submission(classroom.course, "toy_adding", student="nobody")


def test_the_only_notebook_is_taken_under_another_name_and_flagged(classroom):
    path = classroom.hand_in("ada")
    path.rename(path.with_name("toy_adding (1).ipynb"))
    submission = read_submission(classroom.course, "toy_adding", student="ada")
    assert submission.flags == ("renamed_file:toy_adding (1).ipynb",)
    path.with_name("other.ipynb").write_bytes(b"{}")
    with pytest.raises(RejectedError, match=r"expected toy_adding\.ipynb, found other\.ipynb, toy_adding"):
        read_submission(classroom.course, "toy_adding", student="ada")


def test_a_link_to_anothers_work_is_not_followed(classroom):
    theirs = classroom.hand_in("ada")
    mine = classroom.course.submitted("eve", "toy_adding")
    mine.mkdir(parents=True)
    (mine / "toy_adding.ipynb").symlink_to(theirs)
    with pytest.raises(RejectedError, match="link"):
        read_submission(classroom.course, "toy_adding", student="eve")


@pytest.mark.parametrize("level", ["student", "assignment"])
def test_a_linked_folder_is_not_followed(classroom, level):
    classroom.hand_in("ada")
    submitted = classroom.course.root / "submitted"
    if level == "student":
        (submitted / "eve").symlink_to(submitted / "ada")
    else:
        (submitted / "eve").mkdir()
        (submitted / "eve" / "toy_adding").symlink_to(submitted / "ada" / "toy_adding")
    assert "eve" in classroom.course.students("toy_adding")
    with pytest.raises(RejectedError, match="is a link"):
        read_submission(classroom.course, "toy_adding", student="eve")


def test_a_fifo_and_a_folder_in_the_notebooks_place_are_rejected_at_once(classroom):
    for student, make in (("fifo", os.mkfifo), ("folder", os.mkdir)):
        folder = classroom.course.submitted(student, "toy_adding")
        folder.mkdir(parents=True)
        make(folder / "toy_adding.ipynb")
        with pytest.raises(RejectedError, match="not a regular file"):
            read_submission(classroom.course, "toy_adding", student=student)


def test_a_name_that_no_file_system_takes_is_rejected(classroom):
    with pytest.raises(RejectedError, match="cannot be read"):
        read_submission(classroom.course, "toy_adding", student="a" * 300)


def test_a_notebook_beyond_the_size_limit_is_rejected_without_being_read(classroom):
    path = classroom.hand_in("ada")
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(RejectedError, match="clear its outputs"):
        read_submission(classroom.course, "toy_adding", student="ada")


def test_the_fingerprint_follows_the_bytes_and_the_reason(classroom):
    course = classroom.course
    path = classroom.hand_in("ada")
    first = fingerprint(course, "toy_adding", student="ada")
    assert fingerprint(course, "toy_adding", student="ada") == first
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(course, "toy_adding", student="ada") != first
    path.unlink()
    missing = fingerprint(course, "toy_adding", student="ada")
    assert missing != first
    assert missing == fingerprint(course, "toy_adding", student="ada")
