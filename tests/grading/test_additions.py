"""Cells that a student added: what an answer needs of them runs, and nothing else of theirs."""

import json

import pytest

from coursekit.grading.additions import MAX_ADDED_CELLS, MAX_ADDED_CHARACTERS
from coursekit.grading.intake import parse_answers
from coursekit.grading.mishaps import MISHAPS
from coursekit.grading.rebuild import rebuild
from coursekit.grading.template import load_template

HELPER = "def plus(left, right):\n    return left + right"
ADD = "def add(left, right):\n    return plus(left, right)"
SCRATCH = "import time\nprint(add(1, 2))\ntime.sleep(1000)"


@pytest.fixture
def rebuilt(classroom):
    template = load_template(classroom.course, "toy_adding")
    return lambda notebook: rebuild(template, parse_answers(json.dumps(notebook).encode()))


def code(source, **metadata):
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": []}


def place_of(notebook, name):
    return next(n for n, cell in enumerate(notebook["cells"]) if cell.get("id") == name)


def own_cells(rebuilt):
    return [
        cell["source"]
        for cell in rebuilt.notebook["cells"]
        if "added" in cell["metadata"].get("coursekit", {})
    ]


def helper_above(notebook):
    notebook["cells"].insert(place_of(notebook, "add"), code(HELPER))


def helper_at_the_top(notebook):
    notebook["cells"].insert(0, code(HELPER))


def helper_below_the_answer(notebook):
    notebook["cells"].insert(place_of(notebook, "add") + 1, code(HELPER))


def helper_in_a_read_only_cell(notebook):
    notebook["cells"][place_of(notebook, "setup")]["source"] += f"\n\n{HELPER}"


def answer_split_in_two(notebook):
    answer = notebook["cells"][place_of(notebook, "add")]
    notebook["cells"].insert(place_of(notebook, "add"), {**answer, "source": HELPER})


def answer_in_a_cell_of_its_own(notebook):
    answer = notebook["cells"][place_of(notebook, "add")]
    notebook["cells"][place_of(notebook, "add")] = code(f"{HELPER}\n\n{answer['source']}")


def without_its_tests(notebook):
    helper_below_the_answer(notebook)
    notebook["cells"] = json.loads(MISHAPS["deleted_tests"](json.dumps(notebook).encode()))["cells"]


WAYS = [
    helper_above,
    helper_at_the_top,
    helper_below_the_answer,
    helper_in_a_read_only_cell,
    answer_split_in_two,
    answer_in_a_cell_of_its_own,
    without_its_tests,
]


def test_an_answer_gets_its_points_wherever_its_parts_stand(classroom):
    for way in WAYS:
        notebook = classroom.notebook(**{**classroom.good, "add": ADD})
        notebook["cells"].insert(place_of(notebook, "test_add") + 1, code(SCRATCH))
        way(notebook)
        classroom.hand_in(way.__name__.replace("_", "-"), notebook)
    classroom.hand_in("without", add=ADD)
    results = classroom.grade()
    scores = {student: classroom.auto_scores(result) for student, result in results.items()}
    lost = classroom.full | {"test_add": 0, "test_add_hidden": 0}
    assert scores.pop("without") == lost
    assert {student: got for student, got in scores.items() if got != classroom.full} == {}
    assert all("added_cells:1" in result.flags for name, result in results.items() if name != "without")


def test_an_answer_may_be_added_below_its_stub(classroom, rebuilt):
    notebook = classroom.notebook(mean=classroom.good["mean"])
    notebook["cells"].insert(place_of(notebook, "add") + 1, code(classroom.good["add"]))
    got = rebuilt(notebook)
    names = [cell.get("id") for cell in got.notebook["cells"]]
    own = next(name for name in names if name.startswith("added-"))
    assert names.index("add") < names.index(own) < names.index("test_add")
    assert own_cells(got) == [classroom.good["add"]]


def test_experiments_do_not_run(classroom, rebuilt):
    notebook = classroom.notebook(**classroom.good)
    notebook["cells"] += [code(SCRATCH), code("add = 3"), code("def plus(): pass")]
    got = rebuilt(notebook)
    assert own_cells(got) == []
    assert not [flag for flag in got.flags if flag.startswith("added_cells")]


def test_of_an_added_cell_nothing_but_its_text_is_the_students(classroom, rebuilt):
    notebook = classroom.notebook(**{**classroom.good, "add": ADD})
    words = {"grade": True, "points": 100, "solution": False, "grade_id": 7}
    notebook["cells"].insert(0, {**code(HELPER, nbgrader=words, tags=["x"]), "id": "setup", "evil": 1})
    (own,) = [cell for cell in rebuilt(notebook).notebook["cells"] if cell["source"] == HELPER]
    name = own["id"]
    assert name.startswith("added-")
    assert own == {**code(HELPER, coursekit={"added": name}), "id": name, "execution_count": None}


def test_what_is_forbidden_is_so_in_an_added_cell_too(classroom):
    notebook = classroom.notebook(**{**classroom.good, "add": ADD})
    notebook["cells"].insert(0, code(f"import statistics\n{HELPER}"))
    classroom.hand_in("ada", notebook)
    result = classroom.grade()["ada"]
    assert classroom.auto_scores(result)["test_add"] == 0
    assert any(flag.startswith("forbidden:statistics:added-") for flag in result.flags)
    assert any("without statistics" in cell.message for cell in result.cells)


def test_no_more_than_a_bounded_amount_is_looked_at(classroom, rebuilt):
    notebook = classroom.notebook(**{**classroom.good, "add": ADD})
    notebook["cells"].insert(0, code(HELPER))
    notebook["cells"].insert(0, code("x = 1\n" * (MAX_ADDED_CHARACTERS // 6 - 20)))
    assert own_cells(rebuilt(notebook)) == [HELPER]
    notebook["cells"].insert(0, code("x = 1\n" * 20))
    assert own_cells(rebuilt(notebook)) == []


@pytest.mark.parametrize(("number", "found"), [(MAX_ADDED_CELLS - 1, [HELPER]), (MAX_ADDED_CELLS, [])])
def test_so_many_cells_are_looked_at(classroom, rebuilt, number, found):
    notebook = classroom.notebook(add=ADD)
    notebook["cells"][:0] = [*(code(f"x{n} = 1") for n in range(number)), code(HELPER)]
    assert own_cells(rebuilt(notebook)) == found
