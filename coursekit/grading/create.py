"""Making a course folder: nbgrader's layout, a configuration for both tools, and exercises in source/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coursekit.errors import InputError
from coursekit.grading.course import CONFIG_NAME, Course
from coursekit.grading.journal import stamped_version
from coursekit.grading.nbgrader_tools import generate_assignment
from coursekit.grading.template import exercise_version

FOLDERS = ("source", "release", "submitted", "autograded", "feedback")
STUDENTS_HEADER = "id,first_name,last_name,email\n"
LATE_RULE = (
    'c.AssignLatePenalties.plugin_class = "coursekit.grading.late.PercentPerDay"',
    "c.PercentPerDay.percent = 10",
)
CONFIG = '''"""nbgrader's configuration of this course: `nbgrader` and `coursekit grade` both read it."""

from coursekit.grading.nbgrader_settings import grade_fairly, show_safely

c = get_config()  # noqa: F821

grade_fairly(c)  # `nbgrader autograde` rebuilds, runs and scores submissions as `coursekit grade` does
show_safely(c)  # pages without hidden tests, and a formgrader that runs nothing of a student's

# What is set from here on holds.
c.CourseDirectory.course_id = "{course_id}"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", ".*"]
c.RunNotebook.timeout = 60  # seconds a cell, under `nbgrader autograde`

# What late work costs (`coursekit course late` sets deadlines): percent of the points reached, a day begun.
''' + "".join(f"# {line}\n" for line in LATE_RULE)


def init_course(root: str | Path, *, sources: Sequence[Path], course_id: str = "") -> Course:
    """Make a course folder with the exercises of `sources` released, or add them to one that is there.

    What lies there already is kept: submissions, grades, roster and a changed configuration.

    Args:
        root: the folder, new, empty or a course already.
        sources: exercise files `solutions/<slug>.py`.
        course_id: nbgrader's id of the course; by default the folder's name.
    Raises: InputError if the folder holds something else, or a source is wrong.
    """
    root = Path(root).expanduser().resolve()
    if root.is_dir() and any(root.iterdir()) and not (root / CONFIG_NAME).is_file():
        raise InputError(f"{root} is not empty and no course folder", fix="choose a new folder")
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    _write_new(root / CONFIG_NAME, CONFIG.replace("{course_id}", course_id or root.name))
    _write_new(root / "students.csv", STUDENTS_HEADER)
    course = Course(root)
    for source in sources:
        add_exercise(course, source)
    return course


def add_exercise(course: Course, source: Path) -> bool:
    """Build an exercise into source/<slug>/ and release it; return whether anything changed."""
    from coursekit.notebooks.build import instructor_notebook, notebook_text
    from coursekit.notebooks.source import read_source

    exercise = read_source(source)
    slug, path = exercise.slug, course.source(exercise.slug)
    text = notebook_text(instructor_notebook(exercise))
    same = path.is_file() and path.read_text("utf-8") == text
    if same and stamped_version(course.gradebook, slug) == exercise_version(course, slug):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    release_exercise(course, slug)
    return True


def release_exercise(course: Course, assignment: str) -> str:
    """Write release/ and the gradebook's cells from source/, note from which version, and return that."""
    from coursekit.grading.record import Recorder

    version = exercise_version(course, assignment)
    generate_assignment(course, assignment)
    recorder = Recorder(course, assignment, version=version)
    recorder.stamp_exercise()
    recorder.close()
    return version


def _write_new(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text, "utf-8")
