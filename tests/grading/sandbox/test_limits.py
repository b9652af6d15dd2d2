"""Limits: what one kernel uses up is bounded, each process by the system and the sum by the keeper."""

import os

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


# Who forks holds the list of its mappings meanwhile: with many that wait for a processor, for a minute.
HEAVY_BOMB = """
import os
block = b"x" * (100 * 2**20)
while True:
    try: os.fork()
    except OSError: pass
"""


def test_a_fork_bomb_does_not_keep_its_memory_from_being_watched(attempt):
    for layers in (attempt.granted, frozenset({"limits"})):
        states, [said] = attempt.run(HEAVY_BOMB, layers, memory_bytes=450 * MIB)
        assert states == ("died",)
        # Whichever is seen first; the number of tasks that the system allows comes long after.
        assert said[-1].startswith(
            ("stopped: it used more than 450 MiB of memory; ", "stopped: it used more than 128 processes; ")
        )


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


SOCKETS = """
import socket, time
held = [socket.socketpair() for _ in range(100)]
time.sleep(5)
"""
NAMES = """
import os, socket, time
from ipykernel.connect import get_connection_file
os.chdir(os.path.dirname(get_connection_file()))
for number in range(200):
    with socket.socket(socket.AF_UNIX) as made: made.bind(f"x{number}")
time.sleep(5)
"""
SESSIONS = """
import os, time
for _ in range(10):
    if os.fork() == 0:
        os.setsid()
        time.sleep(5)
        os._exit(0)
time.sleep(5)
"""
PROCESSES = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
time.sleep(5)
"""
LOCKS = """
import fcntl, time
with open("locked", "wb") as file:
    for place in range(200, 0, -1): fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * place)
    time.sleep(5)
"""
# A byte is read of each two megabytes of a mapping that holds nothing: no page of it is resident.
PAGE_TABLES = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.mmap.restype, size, step = ctypes.c_void_p, 100 * 2**30, 2**21
read, private_anonymous_unreserved = 1, 0x4022
start = libc.mmap(None, ctypes.c_size_t(size), read, private_anonymous_unreserved, -1, ctypes.c_long(0))
libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 15)  # no huge pages
for place in range(start, start + size, step): ctypes.string_at(place, 1)
time.sleep(5)
"""


@pytest.mark.parametrize(
    ("code", "bounds", "what"),
    [
        (SOCKETS, {"sockets": 150}, "150 sockets"),
        (NAMES, {"sockets": 150}, "150 sockets"),
        (SESSIONS, {"sessions": 5}, "5 sessions of processes"),
        (PROCESSES, {"processes": 15}, "15 processes"),
        (LOCKS, {"locks": 150}, "150 locks on files"),
        (PAGE_TABLES, {"memory_bytes": 230 * MIB}, "230 MiB of memory"),
    ],
    ids=["sockets", "names_of_sockets", "sessions", "processes", "locks", "page_tables"],
)
def test_what_no_process_is_seen_to_have_is_counted(attempt, code, bounds, what):
    states, [said] = attempt.run(code, attempt.granted, **bounds)
    assert states == ("died",), said
    assert said[-1].startswith(f"stopped: it used more than {what}; ")


def test_empty_files_are_counted_in_an_outer_folder(attempt):
    code = "import time\nfor number in range(1000): open(f'f{number}', 'w').close()\ntime.sleep(5)"
    states, [said] = attempt.run(code, {"limits"}, box_bytes=4 * MIB)
    assert states == ("died",)
    assert said[-1].startswith("stopped: it used more than 4.00 MiB of files; ")


def test_terminals_of_a_box_are_bounded(attempt):
    if attempt.refused("files"):
        return
    code = "import os\nfor _ in range(100): os.close(os.openpty()[1])"
    states, _ = attempt.run(code, attempt.granted)
    assert states == ("error",)
    attempt.works_without("files", "processes", "account", "landlock", code=code)


def test_a_kernel_goes_first_where_memory_runs_out_and_cannot_change_that(attempt):
    read = "print(open('/proc/self/oom_score_adj').read())"
    _, [[said]] = attempt.run(read, attempt.granted - {"landlock"})
    assert said.strip() == "1000"
    attempt.fails_with("landlock", code="open('/proc/self/oom_score_adj', 'w').write('0')")


@pytest.mark.skipif(os.geteuid() != 0, reason="the system counts the tasks of all others")
def test_a_bomb_of_root_s_is_bounded_by_the_system_without_namespaces(attempt):
    if attempt.refused("landlock", "system_calls"):
        return
    code = """
import os, signal, time
children = []
try:
    for _ in range(400):
        child = os.fork()
        if child == 0: time.sleep(10); os._exit(0)
        children.append(child)
except OSError: pass
print(len(children))
for child in children: os.kill(child, signal.SIGKILL)
"""
    layers = {"landlock", "system_calls", "limits"}
    states, outputs = attempt.run(code, layers, tasks=150)
    # 64 more than the bound; the keeper may have seen it first.
    assert states == ("died",) or 100 < int(outputs[0][0]) < 220
    attempt.fails_with("system_calls", code="import os\nos.setresuid(0, 0, 0)")
    states, outputs = attempt.run("import os\nprint(os.getresuid()[0])", layers)
    assert states == ("ok",), outputs
    assert int(outputs[0][0]) > 60_000


CROWD = """
import os, time
children = []
for number in range(12):
    if not (child := os.fork()):
        if number >= 9: os.setsid()
        while True: pass
    children.append(child)
own = os.getpriority(os.PRIO_PROCESS, 0)
while True:
    # Twelve as nice as this have one share; one or two more may run for a moment.
    crowd = {os.getpriority(os.PRIO_PROCESS, child) for child in children}
    sessions = set()
    for child in children[9:]:
        try:
            with open(f"/proc/{child}/autogroup") as file: sessions.add((file.read().split() or ["5"])[-1])
        except OSError: sessions.add("5")  # this system has no shares of sessions
    if crowd <= {min(19, own + n) for n in (10, 11, 12)} and sessions == {"5"}: break
    time.sleep(0.1)
print(own == os.getpriority(os.PRIO_PROCESS, 0))
for child in children: os.kill(child, 9)
"""


def test_a_crowd_has_one_share_of_the_processors_together(attempt):
    for layers in (attempt.granted, frozenset({"limits"})):
        states, outputs = attempt.run(CROWD, layers)
        assert (states, outputs) == (("ok",), [["True\n"]])
