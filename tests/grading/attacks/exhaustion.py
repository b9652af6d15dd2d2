"""Taking more than a notebook may: time, memory, processes, threads, disk, output, recursion.

Each counts what it got and prints it; what it asks for is small enough for the machine of whoever tests.
"""

from .corpus import Family

attack = ATTACKS = Family("exhaustion")


@attack("no_grade")
def endless_loop():
    """Never end."""
    return {"double": "while True:\n    pass"}


@attack("no_grade")
def endless_loop_in_a_call():
    """Never end when a test calls."""
    return {"double": "def double(number):\n    while True:\n        pass"}


@attack("no_grade")
def loop_that_cannot_be_interrupted():
    """Never end, and ignore the signal that would stop it."""
    return {"double": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass"}


@attack("no_grade")
def stopped_process():
    """Stop the kernel without ending it: it neither answers nor dies."""
    return {"double": "import os\nimport signal\nos.kill(os.getpid(), signal.SIGSTOP)"}


@attack("no_grade")
def question_that_nobody_answers():
    """Wait for input on a pipe that nobody writes to."""
    return {"double": "import os\nreading, writing = os.pipe()\nos.read(reading, 1)"}


@attack("resources", allowed=1200)
def fork_bomb():
    """Fork children that wait, more than the policy's processes."""
    return {
        "double": """
import os
import signal
import time
children = []
try:
    for _ in range(1400):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        children.append(child)
except OSError:
    pass
print("TOOK", len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
"""
    }


@attack("resources", allowed=1200)
def thread_bomb():
    """Start threads that wait, as many as there may be."""
    return {
        "double": """
import threading
threading.stack_size(65536)
gate, count = threading.Event(), 0
try:
    for _ in range(2000):
        threading.Thread(target=gate.wait, daemon=True).start()
        count += 1
except RuntimeError:
    pass
gate.set()
print("TOOK", count)
"""
    }


@attack("resources", allowed=20_000)
def memory():
    """Reserve memory without end (and without touching it: only the address space is asked for)."""
    return {
        "double": """
blocks, got = [], 0
try:
    while got < 64_000:
        blocks.append(np.empty(1000 * 2**20, np.uint8))
        got += 1000
except MemoryError:
    pass
blocks.clear()
print("TOOK", got)
"""
    }


@attack("resources", allowed=1100)
def disk():
    """Write one file without end (a sparse one: its size is what counts)."""
    return {
        "double": """
got = 0
try:
    with open("big", "wb") as file:
        while got < 5000:
            file.seek(2**20 * 100 - 1, 1)
            file.write(b"x")
            file.flush()
            got += 100
except OSError:
    pass
print("TOOK", got)
"""
    }


@attack("output")
def flood_of_lines():
    """Print thirty megabytes."""
    return {"double": "for _ in range(300):\n    print('x' * 100_000)"}


@attack("output")
def flood_of_displays():
    """Show a thousand large values."""
    return {"double": "from IPython.display import display\nfor _ in range(300):\n    display('x' * 100_000)"}


@attack("output")
def flood_in_one_error():
    """Raise an error with a message of thirty megabytes."""
    return {"double": "raise ValueError('x' * 30_000_000)"}


@attack("no_grade")
def recursion_without_end():
    """Recurse until the stack of the process ends, past the interpreter's own limit."""
    return {
        "double": "import sys\nsys.setrecursionlimit(10**9)\n"
        "def deep(function):\n    return max([function], key=lambda f: deep(f))\ndeep(deep)"
    }
