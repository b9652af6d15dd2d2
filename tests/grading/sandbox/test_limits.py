"""Limits: what one kernel uses up is bounded, each process by the system and the sum by the keeper."""

import pytest

pytestmark = pytest.mark.slow  # seconds each, until what is exhausted is exhausted
MIB = 2**20
MANY = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        block = os.urandom(1) * (80 * 2**20)  # within the bound of one process, whatever it has loaded
        time.sleep(20)
        os._exit(0)
time.sleep(20)
"""
BOMB = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"
THREADS = """
import threading
for _ in range(200): threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_one_process_cannot_take_more_memory_than_the_bound(attempt):
    code = "block = bytearray(2**30)"
    attempt.fails_with("limits", code=code, memory_bytes=700 * MIB)
    attempt.works_without("limits", code=code, memory_bytes=700 * MIB)


def test_several_processes_together_are_stopped_at_the_bound(attempt):
    for layers in (attempt.granted, frozenset({"limits"})):
        states, [said] = attempt.run(MANY, layers, memory_bytes=450 * MIB)
        assert states == ("died",)
        assert said[-1].startswith("stopped: it used more than 450 MiB of memory; ")


def test_a_fork_bomb_is_stopped(attempt):
    for layers in (attempt.granted, frozenset({"limits"})):
        states, [said] = attempt.run(BOMB, layers, tasks=60)
        assert states == ("died",)
        assert said[-1].startswith("stopped: it used more than 60 processes and threads; ")


def test_threads_are_counted(attempt):
    # Stopped, or refused by the system: whichever sees it first.
    attempt.fails_with("limits", code=THREADS + "import time; time.sleep(5)", tasks=100)
    attempt.works_without("limits", code=THREADS, tasks=100)


def test_processor_time_is_bounded(attempt):
    for said in attempt.fails_with("limits", code="while True: pass", cpu_seconds=2):
        assert said.startswith("stopped: it used more than 2 seconds of processor time; ")


@pytest.mark.parametrize(
    ("code", "bounds"),
    [
        ("open('f', 'wb').write(b'x' * 2**21)", {"file_bytes": MIB}),
        ("files = [open('/dev/null') for _ in range(200)]", {"open_files": 150}),
    ],
    ids=["file_size", "open_files"],
)
def test_files_are_bounded(attempt, code, bounds):
    attempt.fails_with("limits", code=code, **bounds)
    attempt.works_without("limits", code=code, **bounds)


def test_a_box_in_an_outer_folder_is_watched(attempt):
    code = "import time\nfor i in range(8): open(f'f{i}', 'wb').write(b'x' * 2**20)\ntime.sleep(10)"
    states, [said] = attempt.run(code, {"limits"}, box_bytes=4 * MIB)
    assert states == ("died",)
    assert said[-1].startswith("stopped: it used more than 4.00 MiB of files; ")
