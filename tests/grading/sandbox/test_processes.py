"""Processes: a kernel sees and signals its own, and none of them outlives it."""

import inspect
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from coursekit.grading.sandbox.keeper import descendants
from coursekit.grading.sandbox.policy import Policy

from ..test_resume import wait_for
from .conftest import run_inside

SELF = ("processes", "files", "account")
# Twice forked, in a session of its own, deaf to SIGTERM: what is called a daemon.
DAEMON = """
import os, signal, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300) # {mark}"
        os.execv(sys.executable, [sys.executable, '-c', code])
    os._exit(0)
os.wait()
"""


@pytest.fixture
def victim():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def test_a_process_outside_is_not_seen(attempt, victim):
    if attempt.refused(*SELF[:2]):
        return
    code = f"import os; os.stat('/proc/{victim.pid}')"
    attempt.fails_with("processes", "files", code=code)
    attempt.works_without("processes", code=code)


def test_a_process_outside_is_not_signalled(attempt, victim):
    code = f"import os; os.kill({victim.pid}, 15)"
    if not attempt.refused("landlock") and "landlock_signals" in attempt.protection.granted:
        attempt.fails_with("landlock", code=code)
    if not attempt.refused("files", "processes"):
        attempt.fails_with("files", "processes", code=code)
    assert victim.poll() is None
    attempt.works_without("processes", "account", "landlock", code=code)
    assert victim.wait(10) == -15


@pytest.mark.parametrize("layers", [None, ()], ids=["all_layers", "no_layer"])
def test_a_daemon_ends_with_its_kernel(attempt, code_notebook, layers):
    mark = f"daemon {os.getpid()} {time.monotonic_ns()}"
    chosen = attempt.granted if layers is None else frozenset(layers)
    states, _ = run_inside(code_notebook, DAEMON.format(mark=mark), policy=Policy(chosen, preload=()))
    assert states == ("ok",)
    assert marked(mark) == []


def test_under_a_stock_kernel_the_daemon_stays(code_notebook):
    mark = f"daemon {os.getpid()} {time.monotonic_ns()}"
    states, _ = run_inside(code_notebook, DAEMON.format(mark=mark), policy=None)
    wait_for(lambda: marked(mark))  # its last fork may not have become another program yet
    left = marked(mark)
    for process in left:
        process.kill()
    assert states == ("ok",)
    assert len(left) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="psutil looks for them there")
def test_processes_that_each_forked_the_next_are_all_found():
    code = "import os, time\nfor depth in range(60):\n    if os.fork(): time.sleep(30)\ntime.sleep(30)"
    first = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    limit, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    try:
        end = time.monotonic() + 20
        while len(found := descendants(first.pid)) < 60 and time.monotonic() < end:
            time.sleep(0.05)
        sys.setrecursionlimit(depth + 40)
        found = descendants(first.pid)
    finally:
        sys.setrecursionlimit(limit)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert len(set(found)) == 60


def test_killing_everything_kills_nothing_outside(attempt, victim):
    if not attempt.refused("processes"):
        attempt.run("import os; os.kill(-1, 9)", attempt.granted)
        assert victim.poll() is None
        assert attempt.run("1", attempt.granted)[0] == ("ok",)  # the template lives as well


def test_the_keeper_cannot_be_looked_into_or_killed(attempt):
    if attempt.refused("processes"):
        return
    attempt.fails_with("files", "processes", code="open('/proc/1/environ').read()")
    attempt.fails_with("files", "processes", code="open('/proc/1/mem', 'rb').read(1)")
    states, outputs = attempt.run(
        "import os, time\ntry: os.kill(1, 9)\nexcept OSError: pass\ntime.sleep(0.3)", attempt.granted
    )
    assert states == ("ok",), outputs


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes whose command holds the mark."""
    return [p for p in psutil.process_iter(["cmdline"]) if any(mark in w for w in p.info["cmdline"] or [])]
