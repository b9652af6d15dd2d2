"""The learner's notebook is what nbgrader itself would release, the same bytes every time."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest

from coursekit.notebooks.build import (
    INSTALL_ID,
    RELEASE_PASSES,
    build_exercise,
    instructor_notebook,
    notebook_text,
    student_notebook,
)


def by_id(notebook):
    return {cell.id: cell for cell in notebook.cells}


def build(course):
    return build_exercise(
        course / "solutions" / "toy.py", solutions=course / "solutions", exercises=course / "exercises"
    )


def test_building_twice_changes_nothing_and_touches_no_file(course):
    first = build(course)
    assert [path.relative_to(course).as_posix() for path in first] == [
        "solutions/toy/toy.ipynb",
        "exercises/toy/toy.ipynb",
    ]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first}
    assert build(course) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first} == before


def test_another_process_builds_the_same_bytes(course, tmp_path):
    build(course)
    options = ["--source", "solutions", "--release", str(tmp_path / "other")]
    command = [sys.executable, "-c", "from coursekit.cli import main; main()", "notebooks", "build", *options]
    environment = {"PYTHONHASHSEED": "7", "HOME": str(tmp_path), "PATH": ""}
    subprocess.run(command, cwd=course, check=True, env=environment, capture_output=True)
    ours, theirs = course / "exercises/toy/toy.ipynb", tmp_path / "other/toy/toy.ipynb"
    assert ours.read_bytes() == theirs.read_bytes()


def test_check_says_what_would_change_and_exits_1(course):
    build(course)
    command = [
        sys.executable,
        "-c",
        "from coursekit.cli import main; main()",
        "notebooks",
        "build",
        "--check",
    ]
    assert subprocess.run(command, cwd=course, capture_output=True).returncode == 0
    released = course / "exercises/toy/toy.ipynb"
    released.write_text(released.read_text().replace("Two small tasks", "Three small tasks"))
    stale = released.read_bytes()
    done = subprocess.run(command, cwd=course, capture_output=True, text=True)
    assert done.returncode == 1
    assert "would change exercises/toy/toy.ipynb" in done.stdout
    assert released.read_bytes() == stale


def test_the_student_gets_stubs_and_no_hidden_test_or_model_answer(student):
    cells = by_id(student)
    assert cells["token_mean"].source.endswith("# YOUR CODE HERE\n    raise NotImplementedError()")
    assert cells["test_token_mean_hidden"].source.startswith("# Graded with tests that you do not see")
    assert "\n" not in cells["test_token_mean_hidden"].source
    assert cells["explain"].source.endswith("YOUR ANSWER HERE")
    assert not [cell.id for cell in student.cells if "BEGIN" in cell.source]


def test_cells_are_named_by_grade_id_or_place_and_hold_no_output(instructor, student):
    for notebook in (instructor, student):
        nbformat.validate(notebook)
        assert [cell.id for cell in notebook.cells] == [
            "cell-00", "setup", "token_mean", "test_token_mean", "test_token_mean_hidden",
            "cell-05", "append_squares", "test_append_squares", "explain",
        ]  # fmt: skip
        assert all(cell.outputs == [] for cell in notebook.cells if cell.cell_type == "code")


def test_every_cell_carries_the_whole_of_nbgraders_schema_3(instructor):
    from nbgrader.nbgraderformat import MetadataValidator

    MetadataValidator().validate_nb(instructor)
    words = {cell.id: cell.metadata.nbgrader for cell in instructor.cells if "nbgrader" in cell.metadata}
    roles = {name: (w.grade, w.solution, w.locked, w.get("points")) for name, w in words.items()}
    assert all(w.schema_version == 3 and w.task is False for w in words.values())
    assert roles == {
        "setup": (False, False, True, None),
        "token_mean": (False, True, False, None),
        "test_token_mean": (True, False, True, 2),
        "test_token_mean_hidden": (True, False, True, 1),
        "append_squares": (False, True, False, None),
        "test_append_squares": (True, False, True, 3),
        "explain": (True, True, False, 2),
    }


def test_a_course_that_is_published_gets_a_first_cell_that_installs(toy):
    student = student_notebook(instructor_notebook(toy, repository="https://example.org/o/n", branch="live"))
    first = student.cells[0]
    assert first.id == INSTALL_ID
    assert first.metadata.nbgrader.locked
    assert "https://example.org/o/n/archive/live.zip" in first.source
    compile(first.source, "first cell", "exec")
    assert INSTALL_ID not in by_id(student_notebook(instructor_notebook(toy)))


def test_our_passes_are_nbgraders_own_without_those_that_need_a_course_folder():
    from nbgrader.converters import GenerateAssignment

    names = [kind.__name__ for kind in GenerateAssignment.preprocessors.default_args[0]]
    needs_folder = {"IncludeHeaderFooter", "InstantiateTests", "SaveCells"}
    assert tuple(name for name in names if name not in needs_folder) == RELEASE_PASSES
    assert needs_folder <= set(names)


@pytest.mark.slow
def test_stock_generate_assignment_releases_the_same_notebook(instructor, student, tmp_path):
    source = tmp_path / "source" / "toy"
    source.mkdir(parents=True)
    (source / "toy.ipynb").write_text(notebook_text(instructor))
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "toy", "--course-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = json.loads((tmp_path / "release/toy/toy.ipynb").read_text())
    ours = json.loads(notebook_text(student))
    assert theirs["cells"] == ours["cells"]
    assert theirs["metadata"] == ours["metadata"]


@pytest.mark.parametrize("name", ["torch", "tensorflow", "jupytext", "nbgrader", "nbformat"])
def test_importing_the_helpers_of_test_cells_loads_nothing_heavy(name):
    code = (
        "import sys; from coursekit.notebooks import check, expect_close, expect_equal, points_for, probe\n"
        f"sys.exit({name!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
