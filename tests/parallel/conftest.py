"""Scripts and process ids for the tests of `launch`, which look at real processes."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time

import psutil
import pytest


class Processes:
    """Starts scripts, and sees which processes run."""

    def __init__(self, folder):
        self.folder = folder
        self.pid_folder = folder / "pids"
        self.pid_folder.mkdir()

    def start(self, script, *arguments, interpreter=()):
        """Start a script in a process group of its own, its output in pipes."""
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(script))
        return subprocess.Popen(
            [sys.executable, *interpreter, str(path), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script, *arguments, **options):
        """Return what a script prints; it may not fail, nor write to standard error."""
        with self.start(script, *arguments, **options) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert err == ""
        return out

    def pids(self, count):
        """Return the ids that `count` processes write as file names into `pid_folder`, once they have."""
        wait_until(lambda: len(os.listdir(self.pid_folder)) >= count, 60)
        pids = [int(name) for name in os.listdir(self.pid_folder)]
        assert len(pids) == count
        assert all(map(is_running, pids))
        return pids

    def all_end(self, pids, seconds=30):
        """Whether all these processes end within some seconds."""
        return wait_until(lambda: not any(map(is_running, pids)), seconds)


def is_running(pid):
    """Whether a process runs; one that is dead but not yet waited for does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def is_waiting(pid):
    """Whether a process waits for something, such as other ranks, and does nothing."""
    return psutil.Process(pid).status() == psutil.STATUS_SLEEPING


def wait_until(condition, seconds):
    """Return whether `condition()` came true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def processes(tmp_path):
    """Return a starter of scripts, and watcher of processes, with a folder of its own."""
    return Processes(tmp_path)
