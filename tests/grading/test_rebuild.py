"""Rebuild: the student's answers and nothing else of the student's."""

import json
import tracemalloc

import pytest

from coursekit.grading.intake import RejectedError, parse_answers
from coursekit.grading.mishaps import MISHAPS
from coursekit.grading.rebuild import rebuild
from coursekit.grading.template import load_template


@pytest.fixture
def template(classroom):
    return load_template(classroom.course, "toy_adding")


@pytest.fixture
def rebuilt(classroom, template):
    def build(notebook):
        data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
        return rebuild(template, parse_answers(data))

    return build


def sources(rebuilt):
    return {
        cell["metadata"]["nbgrader"]["grade_id"]: cell["source"]
        for cell in rebuilt.notebook["cells"]
        if "nbgrader" in cell["metadata"]
    }


def test_the_template_has_the_hidden_tests_and_not_the_solutions(template):
    texts = {
        c["metadata"].get("nbgrader", {}).get("grade_id"): c["source"] for c in template.notebook["cells"]
    }
    assert "expect_close(add(-2, 1), -1" in texts["test_add_hidden"]
    assert "expect_close(add(-2, 1), -1" not in template.released["test_add_hidden"]
    assert "NotImplementedError" in texts["add"]
    assert "left + right" not in json.dumps(template.notebook)


def test_answers_go_where_they_belong_and_the_rest_is_the_templates(classroom, template, rebuilt):
    got = rebuilt(classroom.notebook(add="ADD", mean="MEAN", setup="EVIL", test_add="pass"))
    want = {
        c["metadata"].get("nbgrader", {}).get("grade_id"): c["source"] for c in template.notebook["cells"]
    }
    want.pop(None)
    assert sources(got) == {**want, "add": "ADD", "mean": "MEAN"}
    assert got.flags == ("changed_cell:setup", "changed_cell:test_add")
    assert got.unanswered == {"explain"}


def test_cells_of_the_students_own_are_left_out(classroom, rebuilt):
    notebook = classroom.notebook(add="ADD")
    notebook["cells"].insert(0, {"cell_type": "code", "metadata": {}, "source": "OWN", "outputs": []})
    assert "OWN" not in json.dumps(rebuilt(notebook).notebook)


def test_deleted_cells_come_back_as_stubs(classroom, template, rebuilt):
    notebook = classroom.notebook(add="ADD", mean="MEAN")
    notebook["cells"] = [c for c in notebook["cells"] if c.get("id") not in ("mean", "test_mean")]
    got = rebuilt(notebook)
    assert sources(got)["mean"] == template.released["mean"]
    assert sources(got)["test_mean"] == template.released["test_mean"]
    assert {"missing_cell:mean", "missing_cell:test_mean"} <= set(got.flags)


def test_of_copies_the_last_one_that_was_written_counts(classroom, template, rebuilt):
    notebook = classroom.notebook(add="FIRST")
    add = next(cell for cell in notebook["cells"] if cell.get("id") == "add")
    stub = {**add, "source": template.released["add"] + "  \n"}
    notebook["cells"] += [{**add, "source": "SECOND"}, stub]
    got = rebuilt(notebook)
    assert sources(got)["add"] == "SECOND"
    assert "duplicate_cell:add" in got.flags


def test_reordered_cells_stand_in_the_templates_order(classroom, template, rebuilt):
    got = rebuilt(MISHAPS["reordered_cells"](json.dumps(classroom.notebook(add="ADD")).encode()))
    assert list(sources(got)) == list(template.released)
    assert sources(got)["add"] == "ADD"
    assert "reordered_cells" in got.flags


def test_a_retyped_cell_keeps_its_text_and_gets_its_type_back(classroom, rebuilt):
    notebook = classroom.notebook(add="ADD")
    next(cell for cell in notebook["cells"] if cell.get("id") == "add")["cell_type"] = "markdown"
    got = rebuilt(notebook)
    cell = next(cell for cell in got.notebook["cells"] if cell.get("id") == "add")
    assert (cell["source"], cell["cell_type"]) == ("ADD", "code")
    assert "retyped_cell:add" in got.flags


def test_points_and_tags_of_the_students_are_ignored(classroom, template, rebuilt):
    notebook = classroom.notebook()
    for cell in notebook["cells"]:
        cell["metadata"]["tags"] = ["skip-execution", "raises-exception"]
    got = rebuilt(MISHAPS["changed_points"](json.dumps(notebook).encode()))
    assert [cell["metadata"] for cell in got.notebook["cells"]] == [
        cell["metadata"] for cell in template.notebook["cells"]
    ]


def test_another_exercises_notebook_is_rejected(rebuilt):
    other = {"cells": [{"metadata": {"nbgrader": {"grade_id": "elsewhere"}}, "source": "1"}]}
    with pytest.raises(RejectedError, match="wrong notebook"):
        rebuilt(other)


def test_an_untouched_notebook_raises_no_flag(classroom, rebuilt):
    got = rebuilt(classroom.notebook())
    assert got.flags == ()
    assert got.unanswered == {"add", "mean", "explain"}


def test_an_answer_longer_than_any_is_left_out_and_flagged(rebuilt, template):
    notebook = {"cells": [dict(cell) for cell in template.notebook["cells"]]}
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "add":
            cell["source"] = "# 45678\n" * 13_000
    result = rebuilt(notebook)
    assert sources(result)["add"] == template.released["add"]
    assert "add" in result.unanswered
    assert "too_long_cell:add" in result.flags


def test_a_cell_as_large_as_a_submission_is_not_taken_apart(classroom, rebuilt):
    data = json.dumps(classroom.notebook(setup="ab\n" * 10**7)).encode()
    tracemalloc.start()
    try:
        assert "too_long_cell:setup" in rebuilt(data).flags
        assert tracemalloc.get_traced_memory()[1] < 10 * len(data)  # a line apart takes 59 bytes
    finally:
        tracemalloc.stop()
