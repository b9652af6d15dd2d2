"""nbgrader calls programs by name; an environment that is not activated has them all the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.grading.conftest import TOY

ROOT = Path(__file__).parents[2]


def test_a_course_is_made_although_the_environments_programs_are_not_on_the_path(tmp_path):
    code = "import sys; from coursekit.cli import app; sys.argv[0] = 'coursekit'; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, "course", "init", str(tmp_path / "course"), "--from", str(TOY)],
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "course" / "gradebook.db").is_file()


GRADE_ONE = """
import shutil, sys
from pathlib import Path
import coursekit
from coursekit.grading.create import init_course
from coursekit.grading.pipeline import grade_assignment

assert Path(coursekit.__file__).parents[1] == Path(sys.argv[1])
course = init_course(Path(sys.argv[1]) / "class", sources=[Path(sys.argv[2])])
path = course.submitted("ada", "toy_adding") / "toy_adding.ipynb"
path.parent.mkdir(parents=True)
shutil.copy(course.source("toy_adding"), path)
(result,) = grade_assignment(course, "toy_adding")
print([cell.message for cell in result.cells if cell.message], result.score)
"""


def test_kernels_come_from_the_coursekit_that_grades_though_another_is_installed(tmp_path):
    shutil.copytree(ROOT / "coursekit", tmp_path / "coursekit", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", GRADE_ONE, str(tmp_path), str(TOY)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == "[] 6\n", done.stderr[-2000:]
