"""Writing what is not the student's: the gradebook, the course, others' work, libraries, the disk."""

from .corpus import Family

attack = ATTACKS = Family("writing")


def writes(source: str) -> dict[str, str]:
    """Return a solution cell that does it."""
    return {"double": source}


@attack("others")
def grades_of_everybody():
    """Set everybody's grades in the database."""
    return writes("""
import sqlite3
with sqlite3.connect("COURSE_ROOT/gradebook.db", timeout=30) as connection:
    connection.execute("UPDATE grade SET manual_score = 0, extra_credit = 50")
""")


@attack("others")
def points_of_the_exercise():
    """Make every test worth a hundred points."""
    return writes("""
import sqlite3
with sqlite3.connect("COURSE_ROOT/gradebook.db", timeout=30) as connection:
    connection.execute("UPDATE grade_cells SET max_score = 100")
""")


@attack("others")
def tests_in_the_gradebook_emptied():
    """Empty the tests that later submissions will be graded with."""
    return writes("""
import sqlite3
with sqlite3.connect("COURSE_ROOT/gradebook.db", timeout=30) as connection:
    connection.execute("UPDATE source_cell SET source = 'pass' WHERE source LIKE '%expect_%'")
""")


@attack("others")
def gradebook_overwritten():
    """Write rubbish over the journal of what was graded."""
    return writes("""
import sqlite3
with sqlite3.connect("COURSE_ROOT/gradebook.db", timeout=30) as connection:
    connection.execute("UPDATE coursekit_journal SET submission = 'x' WHERE student = 'a_witness'")
""")


@attack("others")
def neighbours_submission_replaced():
    """Overwrite the work of a student who is graded later."""
    return writes("""
path = "COURSE_ROOT/submitted/z_neighbour/toy_guarded/toy_guarded.ipynb"
open(path, "w").write("{}")
""")


@attack("others")
def witnesss_work_deleted():
    """Delete the executed notebook of a student who was graded before."""
    return writes("import os\nos.remove('COURSE_ROOT/autograded/a_witness/toy_guarded/toy_guarded.ipynb')")


@attack("others")
def source_notebook_changed():
    """Change the instructor's notebook, for the next release."""
    return writes("open('COURSE_ROOT/source/toy_guarded/toy_guarded.ipynb', 'a').write(' ')")


@attack("others")
def configuration_poisoned():
    """Add a line to the course's configuration, which the grader executes the next time."""
    return writes("open('COURSE_ROOT/nbgrader_config.py', 'a').write('\\n# owned')")


@attack("mark")
def file_outside_the_folder():
    """Write a file elsewhere."""
    return writes("open('OUTSIDE/ATTACK_NAME', 'w').write('x')")


@attack("mark")
def file_by_another_program():
    """Let another program write it."""
    return writes("import subprocess\nsubprocess.run(['touch', 'OUTSIDE/ATTACK_NAME'])")


@attack("mark")
def file_through_a_link():
    """Write through a link in the own folder."""
    return writes("import os\nos.symlink('OUTSIDE/ATTACK_NAME', 'mine')\nopen('mine', 'w').write('x')")


@attack("mark")
def file_through_a_parents_folder():
    """Write by a path that climbs out of the own folder."""
    return writes("open('../' * 40 + 'OUTSIDE/ATTACK_NAME'.lstrip('/'), 'w').write('x')")


@attack("mark")
def library_of_the_grader():
    """Write into the installed numpy, which every later kernel imports."""
    return writes(
        "import os\nopen(os.path.join(os.path.dirname(np.__file__), 'ATTACK_NAME'), 'w').write('x')"
    )


@attack("mark")
def shared_memory_left_behind():
    """Leave a file in shared memory, where disk limits do not count."""
    return writes("open('/dev/shm/ATTACK_NAME', 'w').write('x')")


@attack("others")
def permissions_taken_away():
    """Take the permission to read from the configuration."""
    return writes("import os\nos.chmod('COURSE_ROOT/nbgrader_config.py', 0)")


@attack("resources", allowed=0)
def limits_of_the_parent():
    """Set a limit of the process that started this one: of the same user it may be anybody's."""
    return writes("""
import os
import resource
try:
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))
    print("TOOK", 1)
except OSError:
    print("TOOK", 0)
""")


@attack("resources", allowed=0)
def share_of_the_parent():
    """Give the process that started this one a smaller share of the processors."""
    return writes("""
import os
parent = os.getppid()
before = os.getpriority(os.PRIO_PROCESS, parent)
try:
    os.setpriority(os.PRIO_PROCESS, parent, before + 1)
except OSError:
    pass
print("TOOK", int(os.getpriority(os.PRIO_PROCESS, parent) != before))
""")


@attack("resources", allowed=0)
def lease_on_a_library():
    """Take a lease on a file of a library: whoever opens it then has to wait."""
    return writes("""
import fcntl
import os
with open(os.path.join(os.path.dirname(np.__file__), "py.typed")) as file:
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        print("TOOK", 1)
    except OSError:
        print("TOOK", 0)
""")


@attack("resources", allowed=0)
def times_of_the_configuration():
    """Set the time at which a file of the course was changed, by which others judge it."""
    return writes("""
import os
try:
    os.utime("COURSE_ROOT/nbgrader_config.py", (1, 1))
    print("TOOK", int(os.stat("COURSE_ROOT/nbgrader_config.py").st_mtime == 1))
except OSError:
    print("TOOK", 0)
""")
