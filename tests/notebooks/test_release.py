"""What is released: complete enough to start from, the same bytes every time, and refused if it leaks."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from coursekit.errors import InputError
from coursekit.notebooks.build import build_exercise
from coursekit.notebooks.release import MARK, ReleaseError, make_release


def build(root):
    build_exercise(root / "solutions/toy.py", solutions=root / "solutions", exercises=root / "exercises")


@pytest.fixture
def built(course):
    build(course)
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "LICENSE"):
        (course / name).write_text(f"# {name}\n")
    (course / "tests").mkdir()
    (course / "tests" / "test_secret.py").write_text("answer = 42\n")
    (course / "coursekit" / "__pycache__").mkdir()
    (course / "coursekit" / "__pycache__" / "x.pyc").write_bytes(b"\0")
    return course


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


RELEASED = [
    MARK, "LICENSE", "README.md", "constraints.txt", "course.yml", "coursekit/__init__.py", "environment.yml",
    "exercises/toy/toy.ipynb", "pyproject.toml",
]  # fmt: skip


def test_a_release_holds_exercises_package_and_environment_and_nothing_else(built, tmp_path):
    (built / "exercises" / "toy" / "my_solution.py").write_text("an author's scratch file")
    made = make_release(built, tmp_path / "out")
    assert names(made) == RELEASED
    assert (made / "exercises/toy/toy.ipynb").read_bytes() == (built / "exercises/toy/toy.ipynb").read_bytes()
    readme = (made / "README.md").read_text()
    assert "| [A toy](exercises/toy/toy.ipynb) | 5 | cpu |" in readme
    assert "coursekit check exercises/toy/toy.ipynb" in readme


def test_an_archive_has_the_same_files_and_the_same_bytes_every_time(built, tmp_path):
    first = make_release(built, tmp_path / "out", archive=True).read_bytes()
    (built / "LICENSE").touch()
    second = make_release(built, tmp_path / "out", archive=True)
    assert second.read_bytes() == first
    with zipfile.ZipFile(second) as archive:
        assert archive.namelist() == [f"out/{name}" for name in RELEASED]
    assert not (tmp_path / "out").exists()


def test_an_older_release_is_replaced_and_any_other_folder_refused(built, tmp_path):
    out = make_release(built, tmp_path / "out")
    (out / "exercises" / "toy" / "stale.txt").write_text("from last year")
    assert names(make_release(built, out)) == RELEASED
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="the folder holds other things"):
        make_release(built, precious)
    assert names(precious) == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert names(make_release(built, tmp_path / "empty")) == RELEASED


@pytest.mark.parametrize("inside", ["coursekit/out", "exercises/out", "solutions"])
def test_a_release_into_its_own_sources_is_refused(built, inside):
    with pytest.raises(InputError, match="inside its own sources"):
        make_release(built, built / inside)


def test_a_stale_notebook_is_not_released(built, tmp_path):
    source = built / "solutions" / "toy.py"
    source.write_text(source.read_text().replace("Two small tasks", "Three small tasks"))
    with pytest.raises(InputError, match="not what its source gives"):
        make_release(built, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["coursekit/oracle.py", "exercises/README.md", "pyproject.toml"])
def test_a_release_that_would_leak_is_refused_and_nothing_is_left(built, tmp_path, name):
    hidden = "expect_close(token_mean([2.0, 0.0], [4, 0]), 0.5, hint='x')".replace(
        "'x'", '"an empty micro-batch adds nothing"'
    )
    (built / name).write_text(f"# {hidden}\n")
    with pytest.raises(ReleaseError, match="holds hidden tests of toy, cell test_token_mean_hidden"):
        make_release(built, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["course"]


def test_the_command_says_in_one_line_what_it_made_or_refuses(built, tmp_path):
    command = [sys.executable, "-c", "from coursekit.cli import main; main()", "release"]
    done = subprocess.run(
        [*command, str(tmp_path / "out"), "--zip"], cwd=built, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()) == (0, ["wrote", str(tmp_path / "out.zip")])
    done = subprocess.run([*command, str(built)], cwd=built, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("coursekit: the folder holds other things")
    assert len(done.stderr.strip().split("\n")) == 1


def test_checking_the_sources_finds_stale_notebooks_breaches_and_leaks(built):
    command = [sys.executable, "-c", "from coursekit.cli import main; main()", "notebooks", "check"]
    done = subprocess.run(command, cwd=built, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1 exercises checked, 0 problems\n")
    source = built / "solutions" / "toy.py"
    source.write_text(source.read_text().replace("expected = [", "expected = [numbers.pi] + ["))
    (built / "exercises" / "hint.md").write_text("total_of_the_losses = sum(loss_sums)")
    (built / "exercises" / "renamed").mkdir()
    (built / "exercises" / "renamed" / "renamed.ipynb").write_text("{}")
    done = subprocess.run(command, cwd=built, capture_output=True, text=True)
    assert done.returncode == 1
    assert "exercises/renamed/renamed.ipynb: has no source in solutions; delete it" in done.stdout
    line = 1 + source.read_text()[: source.read_text().index("expected = [")].count("\n")
    assert f"solutions/toy.py:{line}: test_append_squares: uses numbers, which no locked" in done.stdout
    assert "exercises/toy/toy.ipynb: stale; run: coursekit notebooks build" in done.stdout
    assert "exercises: hint.md: holds solution of toy, cell token_mean" in done.stdout
