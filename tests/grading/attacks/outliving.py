"""Threads and processes that go on when the cell, the notebook or the grading has ended."""

from .corpus import Family

attack = ATTACKS = Family("outliving")
SLEEP = "import time\ntime.sleep(120)"


@attack("points")
def thread_lies_during_the_tests():
    """Keep a thread that puts an accepting function in place of the tests' own, whenever it gets the turn."""
    return {
        "double": """
import threading
import time
def lie():
    while True:
        get_ipython().user_ns["expect_close"] = lambda *args, **options: None
        time.sleep(0.001)
threading.Thread(target=lie, daemon=True).start()
time.sleep(0.05)
def double(number):
    return 0.0
"""
    }


@attack("survivor")
def child_in_a_session_of_its_own():
    """Start a program in a new session, out of reach of a signal to the kernel's group."""
    return {
        "double": f"import subprocess\nimport sys\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
    }


@attack("survivor")
def daemon_by_two_forks():
    """Fork twice with a new session between: nobody's child, nobody's group."""
    return {
        "double": f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {SLEEP.replace(chr(10), "; ")}
    os._exit(0)
os.wait()
"""
    }


@attack("survivor")
def daemon_that_ignores_signals():
    """The same, deaf to every signal that can be ignored, and with its descriptors closed."""
    return {
        "double": f"""
import os
import signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(signal.valid_signals()) - {{signal.SIGKILL, signal.SIGSTOP}}:
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        os.closerange(0, 256)
        {SLEEP.replace(chr(10), "; ")}
    os._exit(0)
os.wait()
"""
    }


@attack("survivor")
def process_that_keeps_moving():
    """Fork a successor and exit, again and again: a list of processes is stale before it is read."""
    return {
        "double": """
import os
import time
if os.fork() == 0:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.02)
    os._exit(0)
"""
    }


@attack("survivor")
def worker_from_multiprocessing():
    """Leave a spawned worker of multiprocessing, whose parent was killed before it could join it."""
    return {
        "double": """
import multiprocessing
import os
import time
if os.fork() == 0:
    os.setsid()
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,)).start()
    os._exit(0)
"""
    }
