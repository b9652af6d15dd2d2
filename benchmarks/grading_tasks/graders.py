"""The graders that are compared: each is given a course folder and grades every submission in it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coursekit.grading.course import Course

STOCK = 'c = get_config()\nc.CourseDirectory.course_id = "course"\n'
WORKERS = 2
# The first form of this project's grading: a kernel as Jupyter starts it, and the tests in it.
PLAIN = """
from coursekit.grading import session
from coursekit.grading.course import Course
from coursekit.grading.pipeline import Options, grade_assignment

session.sandbox_for = lambda *args, **options: None
grade_assignment(Course.open("."), {slug!r}, options=Options(workers={workers}, tests_in_place=True))
"""
OTTER_TEST = """OK_FORMAT = False
import linecache
from otter.test_files import test_case

name = {name!r}
points = {points!r}
SOURCE = {source!r}


@test_case()
def test(env):
    linecache.cache[name] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), name)
    exec(compile(SOURCE, name, "exec"), env)
"""


@dataclass(frozen=True)
class Grader:
    """A way to grade: `prepare` is not timed, `grade` is; `score` tells what a student got."""

    name: str
    grade: Callable[[Course, str], None]
    score: Callable[[Course, str, str], float]
    prepare: Callable[[Course, str], None] = lambda course, slug: None
    needs: str = "nbgrader"

    @property
    def there(self) -> bool:
        """Whether the package that it needs can be imported."""
        return importlib.util.find_spec(self.needs) is not None


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed: {(done.stderr or done.stdout)[-2000:]}")


def gradebook_score(course: Course, slug: str, student: str) -> float:
    """Return the points that the machine gave, from nbgrader's gradebook."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        grades = book.find_submission(slug, student).notebooks[0].grades
        return sum(grade.auto_score or 0.0 for grade in grades)


def make_stock(course: Course, slug: str) -> None:
    """Take this project's configuration away, and its gradebook, which stock nbgrader makes anew."""
    (course.root / "nbgrader_config.py").write_text(STOCK)
    course.gradebook.unlink()
    run([sys.executable, "-m", "nbgrader", "generate_assignment", slug, "--force"], course.root)


def grade_stock(course: Course, slug: str) -> None:
    run([sys.executable, "-m", "nbgrader", "autograde", slug], course.root)


def grade_ours(course: Course, slug: str) -> None:
    code = "from coursekit.cli import main; main()"
    run([sys.executable, "-c", code, "grade", slug, "--workers", str(WORKERS)], course.root)


def grade_plain(course: Course, slug: str) -> None:
    run([sys.executable, "-c", PLAIN.format(slug=slug, workers=WORKERS)], course.root)


def make_otter(course: Course, slug: str) -> None:
    """Write the exercise's tests as otter's own kind of test files; partial points become all or nothing."""
    source = json.loads(course.source(slug).read_bytes())
    with zipfile.ZipFile(course.root / "autograder.zip", "w") as archive:
        archive.writestr("otter_config.json", json.dumps({"lang": "python", "pdf": False}))
        for cell in source["cells"]:
            words = cell["metadata"].get("nbgrader", {})
            if cell["cell_type"] == "code" and words.get("grade"):
                name, text = words["grade_id"], "".join(cell["source"])
                test = OTTER_TEST.format(name=name, points=words["points"], source=text)
                archive.writestr(f"tests/{name}.py", test)


def grade_otter(course: Course, slug: str) -> None:
    """Run otter without its containers, a process a submission, two at a time."""

    def one(student: str) -> None:
        folder = course.submitted(student, slug)
        # It asks for tests by the folder of the autograder; a submission carries no otter metadata.
        command = [
            sys.executable,
            "-m",
            "otter",
            "run",
            "-a",
            str(course.root / "autograder.zip"),
            "--no-logo",
        ]
        run([*command, "-o", str(folder), str(folder / f"{slug}.ipynb")], folder)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, course.students(slug)))


def otter_score(course: Course, slug: str, student: str) -> float:
    results = json.loads((course.submitted(student, slug) / "results.json").read_bytes())
    return sum(test.get("score", 0.0) for test in results["tests"])


GRADERS = (
    Grader("stock nbgrader", grade_stock, gradebook_score, make_stock),
    Grader("otter-grader", grade_otter, otter_score, make_otter, needs="otter"),
    Grader("coursekit, plain", grade_plain, gradebook_score),
    Grader("coursekit grade", grade_ours, gradebook_score),
)
