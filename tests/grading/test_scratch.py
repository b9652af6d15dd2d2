"""Folders in the temporary folder go with the run that made them, also when it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coursekit.grading.scratch import PREFIX

TAKES_ONE = """
import sys
from coursekit.grading.scratch import scratch_folder
folder = scratch_folder()
open(f"{folder.name}/what a student left", "w").close()
print(folder.name, flush=True)
sys.stdin.read()
"""
KILLED_WHILE_A_KERNEL_RUNS = """
import os, signal
from coursekit.cli import main
from coursekit.grading import run
run._end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


class Run:
    """A process that has a folder until its stdin is closed."""

    def __init__(self, temporary):
        command = [sys.executable, "-c", TAKES_ONE]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.folder = Path(self.process.stdout.readline().strip())

    def end(self, number=None):
        if number:
            self.process.send_signal(number)
        self.process.communicate(timeout=60)


def test_the_next_run_clears_away_what_killed_ones_left_and_nothing_that_is_held(tmp_path):
    (tmp_path / "ck-anothers").mkdir()
    first, second = Run(tmp_path), Run(tmp_path)
    assert first.folder.is_dir(), "the second took away what the first one holds"
    first.end(signal.SIGKILL)
    assert list(first.folder.iterdir()), "the kill left nothing: there is nothing to show"
    third = Run(tmp_path)
    assert not first.folder.parent.exists()
    assert second.folder.is_dir()
    for run in (second, third):
        run.end()
    assert [path.name for path in tmp_path.iterdir()] == ["ck-anothers"], "who ends well leaves nothing"


def test_what_others_put_there_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "mine")
    (tmp_path / f"{PREFIX}file").write_text("not a folder")
    Run(tmp_path).end()
    assert (tmp_path / "mine").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", f"{PREFIX}link", f"{PREFIX}file"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_another_user_stays(tmp_path):
    (tmp_path / f"{PREFIX}theirs").mkdir()
    os.chown(tmp_path / f"{PREFIX}theirs", 65534, 65534)
    Run(tmp_path).end()
    assert (tmp_path / f"{PREFIX}theirs").is_dir()


def test_grading_that_was_killed_leaves_nothing_once_somebody_grades_again(classroom, tmp_path):
    classroom.hand_in("ada")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    options = ["grade", "toy_adding", "--course", classroom.course.root, "--allow-unsandboxed"]
    given = {"env": {**os.environ, "TMPDIR": str(temporary)}, "capture_output": True}
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_A_KERNEL_RUNS, *options], **given)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(temporary.iterdir()), "the kill left nothing: there is nothing to show"
    main = "from coursekit.cli import main; main()"
    subprocess.run([sys.executable, "-c", main, *options], check=True, **given)
    assert not list(temporary.iterdir())
