"""Commands given files and folders that are not there, or not what they should be: one line each."""

import re
import subprocess
import sys

import pytest

MISTAKES = {
    "a file for the learner's folder": ("notebooks copy file --release {exercises}", "file: File exists"),
    "no exercises": ("notebooks copy work --release nowhere", "no exercises to copy"),
    "no archive to search": ("notebooks check --also nowhere", "nothing to search for leaks: .* got nowhere"),
    "a course file that is none": ("notebooks build --course-file damaged.yml", "damaged.yml is no YAML"),
    "no book": ("book build --book nowhere", "nowhere/_toc.yml: No such file or directory"),
    "no map": ("book map --root nowhere --check", "nowhere/course.yml: No such file or directory"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "damaged.yml").write_bytes(b"\xff\xfe")
    (tmp_path / "course.yml").write_text("chapters: []\n")
    (tmp_path / "solutions").mkdir()
    exercise = tmp_path / "exercises" / "setup"
    exercise.mkdir(parents=True)
    (exercise / "setup.ipynb").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_no_traceback(folder, mistake):
    arguments, message = MISTAKES[mistake]
    command = [sys.executable, "-c", "from coursekit.cli import main; main()"]
    command += arguments.format(exercises=folder / "exercises").split()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.search(message, line), line
