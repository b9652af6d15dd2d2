"""Taking more than a notebook may: time, memory, processes, threads, disk, output, recursion.

Each counts what it got and prints it; what it asks for is small enough for the machine of whoever tests.
Of what the keeper counts and the system does not, an attack has got what it can keep for longer than a cell
may run: however late the keeper looks, nothing is kept beyond that.
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


@attack("output")
def flood_in_metadata():
    """Show small values with megabytes of metadata."""
    return {
        "double": """
from IPython.display import display
for _ in range(10):
    display({"text/plain": "x"}, metadata={"a": "x" * 1_000_000}, raw=True)
"""
    }


@attack("output")
def flood_of_results():
    """Publish results that are each short enough to be somebody's points, with metadata that are not."""
    return {
        "double": """
hook = get_ipython().displayhook
for _ in range(10):
    content = {"data": {"text/plain": "3"}, "metadata": {"a": "x" * 1_000_000}, "execution_count": 1}
    hook.session.send(hook.pub_socket, "execute_result", content, parent=hook.parent_header)
"""
    }


@attack("output")
def flood_in_the_name_of_an_error():
    """Raise an error whose name has twelve megabytes."""
    return {"double": "raise type('E' + 'x' * 12_000_000, (Exception,), {})('x')"}


@attack("output")
def flood_in_every_cell():
    """Print in each cell nearly as much as one cell may, in characters that take six in a file."""
    flood = "print('\\x01' * 180_000)"
    return {name: flood for name in ("double", "account", "norm", "total")} | {
        "explain": "x" * 99_000,
        "double": f"{flood}\nprint('\\x01' * 800_000)",
    }


@attack("resources", allowed=100)
def terminals():
    """Open terminals, of which a machine has a few thousand for all."""
    return {
        "double": """
import os
held = []
try:
    while len(held) < 800:
        master, slave = os.openpty()
        held.append(master)
        os.close(slave)
except OSError:
    pass
print("TOOK", len(held))
for master in held:
    os.close(master)
"""
    }


@attack("resources", allowed=2500)
def names_of_sockets():
    """Make sockets without end in the folder that the grader connects through: it is on its own disk."""
    return {
        "double": """
import os
import socket
import time
from ipykernel.connect import get_connection_file
os.chdir(os.path.dirname(get_connection_file()))
for number in range(20_000):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"x{number}")
time.sleep(3)
print("TOOK", number)
"""
    }


@attack("resources", allowed=600)
def memory_of_sockets():
    """Keep memory in the buffers of sockets, where no process has it."""
    return {
        "double": """
import os
import socket
import time
reading, writing = os.pipe()
def fill():
    held, got = [], 0
    while got < 160 * 2**20:
        held += socket.socketpair()
        for end in held[-2:]:
            end.setblocking(False)
            try:
                while True:
                    got += end.send(b"x" * 65536)
            except BlockingIOError:
                pass
    os.write(writing, b"%d " % (got >> 20))
    time.sleep(20)
for _ in range(6):
    if os.fork() == 0:
        try:
            fill()
        finally:
            os._exit(0)
os.close(writing)
said = b""
while said.count(b" ") < 6 and (more := os.read(reading, 1000)):
    said += more
time.sleep(3)
print("TOOK", sum(map(int, said.split())))
"""
    }


@attack("resources", allowed=8)
def sessions():
    """Start processes in sessions of their own: each session has the same share of a processor."""
    return {
        "double": """
import os
import time
for _ in range(60):
    if os.fork() == 0:
        os.setsid()
        time.sleep(20)
        os._exit(0)
time.sleep(3)
print("TOOK", 60)
"""
    }


@attack("resources", allowed=70_000)
def empty_files():
    """Make files of nothing without end: a disk has room for so many names, too."""
    return {
        "double": """
import time
made = 0
try:
    for made in range(100_000):
        open(f"{made}", "w").close()
except OSError:
    pass
time.sleep(3)
print("TOOK", made)
"""
    }


@attack("resources", allowed=0)
def requests_for_files():
    """Reserve the asynchronous requests of the whole machine."""
    return {
        "double": """
import ctypes
import platform
number = {"x86_64": 206, "aarch64": 0}[platform.machine()]
context = ctypes.c_ulong(0)
print("TOOK", int(ctypes.CDLL(None).syscall(number, 8, ctypes.byref(context)) == 0))
"""
    }


@attack("resources", allowed=60)
def buffers_of_connections():
    """Keep memory on its way between two ends of connections: it is the machine's share for all programs."""
    return {
        "double": """
import socket
listener, held, got = socket.create_server(("127.0.0.1", 0), backlog=200), [], 0
for _ in range(150):
    held += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
    for end in held[-2:]:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        end.setblocking(False)
        try:
            while True:
                got += end.send(b"x" * 65536)
        except BlockingIOError:
            pass
print("TOOK", got >> 20)
"""
    }


@attack("resources", allowed=128)
def mappings_of_a_crowd():
    """Fork children that each have many mappings: the system remembers these, in memory of its own."""
    return {
        "double": """
import mmap
import os
import time
size = mmap.PAGESIZE
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
maps = [mmap.mmap(-1, size, flags, mmap.PROT_READ * (n % 2)) for n in range(1000)]
for _ in range(200):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
time.sleep(3)
print("TOOK", 200)
"""
    }


@attack("resources", allowed=10_000)
def locks_on_parts_of_files():
    """Lock byte after byte: the system remembers each lock, in memory of its own."""
    return {
        "double": """
import fcntl
import time
files = [open(f"{number}", "wb") for number in range(30)]
for file in files:
    for place in range(1000, 0, -1):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * place)
time.sleep(3)
print("TOOK", 30_000)
"""
    }
