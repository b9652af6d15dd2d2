"""nbgrader calls programs by name; an environment that is not activated has them all the same."""

import os
import subprocess
import sys

from tests.grading.conftest import TOY


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
