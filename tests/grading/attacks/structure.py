"""Notebooks that are put together otherwise than they were released: cells and their metadata.

The undefended grader runs the notebook as it came and believes its metadata.
"""

import copy

from .corpus import SLUG, TESTS, Desk, Family, edited, grade_id

attack = ATTACKS = Family("structure")


def cell(source: str, **words) -> dict:
    """Return a code cell; `words` are its nbgrader metadata."""
    metadata = {"nbgrader": {"schema_version": 3, **words}} if words else {}
    base = {"cell_type": "code", "outputs": [], "execution_count": None}
    return {**base, "id": f"new{abs(hash(source)) % 10**8}", "metadata": metadata, "source": source}


@attack("points")
def tests_emptied(desk: Desk):
    """Empty every test cell."""
    desk.write(edited(desk, lambda cell: cell.update(source="pass")))


@attack("points")
def tests_replaced_by_numbers(desk: Desk):
    """Let every test cell end with a hundred points."""
    desk.write(edited(desk, lambda cell: cell.update(source="100")))


@attack("points")
def tests_promise_more_points(desk: Desk):
    """Raise the points of every test in its metadata."""
    desk.write(edited(desk, lambda cell: cell["metadata"]["nbgrader"].update(points=100)))


@attack("points")
def tests_tagged_to_be_skipped(desk: Desk):
    """Tag the tests so that nbclient skips them: stock nbgrader gives a cell without output full marks."""
    desk.write(edited(desk, lambda cell: cell["metadata"].update(tags=["skip-execution"])))


@attack("points")
def tests_unlocked(desk: Desk):
    """Say in their metadata that the tests are not locked: stock nbgrader puts back only what is."""

    def change(cell):
        cell["metadata"]["nbgrader"].update(locked=False)
        cell["source"] = "pass  # unlocked"

    desk.write(edited(desk, change))


@attack("points")
def second_copies_of_tests(desk: Desk):
    """Append a second, empty copy of each test: of copies the last one may count."""
    notebook = desk.notebook()
    copies = [copy.deepcopy(cell) for cell in notebook["cells"] if grade_id(cell) in TESTS]
    for number, copied in enumerate(copies):
        copied.update(source="pass", id=f"copy{number}")
    notebook["cells"] += copies
    desk.write(notebook)


@attack("points")
def solution_cells_with_the_names_of_tests(desk: Desk):
    """Add cells of one's own that carry the tests' names, points and no locks."""
    notebook = desk.notebook()
    words = {"solution": False, "grade": True, "locked": False, "task": False}
    notebook["cells"] += [
        cell(f"pass  # {name}", grade_id=name, points=points, **words) for name, points in TESTS.items()
    ]
    desk.write(notebook)


@attack("points")
def tests_of_ones_own(desk: Desk):
    """Add a test of one's own, worth fifty points and easy to pass."""
    notebook = desk.notebook()
    words = {"solution": False, "grade": True, "locked": True, "task": False, "cell_type": "code"}
    notebook["cells"].append(cell("pass", grade_id="test_mine", points=50, **words))
    desk.write(notebook)


@attack("points")
def locked_cell_changed(desk: Desk):
    """Change the locked set-up cell, which imports what the tests compare with."""
    notebook = desk.notebook(double="def double(number):\n    return 0.0")
    for one in notebook["cells"]:
        if grade_id(one) == "setup":
            one["source"] += "\ndef expect_close(*args, **options):\n    pass"
    desk.write(notebook)


@attack("points")
def cell_without_a_name_in_front(desk: Desk):
    """Put a cell that no one released in front of all others."""
    notebook = desk.notebook()
    patch = "import coursekit.notebooks.expect as e\ne._close = lambda *args: None\n"
    notebook["cells"].insert(0, cell(patch))
    notebook["cells"].insert(2, cell("def double(number):\n    return 0.0"))
    for one in notebook["cells"]:
        if grade_id(one) == "double":
            one["source"] = "pass"
    desk.write(notebook)


@attack("points")
def outputs_made_up(desk: Desk):
    """Hand in tests that are no code any more, with the outputs of a success."""

    def change(cell):
        data = {"text/plain": "100"}
        cell["outputs"] = [
            {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}
        ]
        cell.update(source="", execution_count=1)

    desk.write(edited(desk, change))


@attack("no_grade")
def kernel_of_ones_own(desk: Desk):
    """Name a kernel that does not exist."""
    notebook = desk.notebook()
    notebook["metadata"]["kernelspec"] = {"name": "mine", "display_name": "x", "language": "python"}
    desk.write(notebook)


@attack("no_grade")
def metadata_of_wrong_types(desk: Desk):
    """Put numbers, lists and null where metadata belong."""
    notebook = desk.notebook()
    for number, one in enumerate(notebook["cells"]):
        if not grade_id(one):
            one["metadata"] = [3, None, "x", []][number % 4]
    notebook["cells"] += [3, None, {"cell_type": 7, "source": {"a": 1}}]
    notebook["metadata"] = ["coursekit", SLUG]
    desk.write(notebook)


@attack("no_grade")
def points_that_are_no_number(desk: Desk):
    """Let the points of a test be a text."""
    desk.write(edited(desk, lambda cell: cell["metadata"]["nbgrader"].update(points="many")))


@attack("no_grade")
def twenty_thousand_cells(desk: Desk):
    """Add cells without end that each take a little time."""
    notebook = desk.notebook()
    slow = cell("import time\ntime.sleep(0.05)")
    notebook["cells"] += [{**slow, "id": f"x{number}"} for number in range(20_000)]
    desk.write(notebook)


@attack("points")
def metadata_that_claim_everything(desk: Desk):
    """Say of every cell that it is a test of a thousand points, a task, a solution, and graded already."""
    notebook = desk.notebook()
    claims = {"points": 1000, "grade": True, "task": True, "locked": False, "cell_type": "markdown"}
    for one in filter(grade_id, notebook["cells"]):
        one["source"] = "pass" if grade_id(one) in TESTS else one["source"]
        one["metadata"]["nbgrader"].update(claims, score=1000, extra_credit=50, checksum="x")
    desk.write(notebook)


@attack("output")
def ten_megabytes_of_an_answer(desk: Desk):
    """Write an answer of ten megabytes."""
    desk.write(desk.notebook(explain="word " * 2_000_000))
