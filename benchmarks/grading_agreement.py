"""Do honest submissions get the same points, test by test, from `coursekit grade` and stock nbgrader?

    python benchmarks/grading_agreement.py                      # every exercise: half an hour
    python benchmarks/grading_agreement.py mixture_of_experts   # one

For each exercise a class is made of its reference, its stub and its recorded wrong answers, and graded by
both. Exit status 1 if a test cell of any of them differs. `warns` is left out: a right answer that warns gets
nothing from stock nbgrader, which is one of the reasons for this project.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from grading_tasks.graders import grade_ours, grade_stock, make_stock

from coursekit.grading.course import Course
from coursekit.grading.create import init_course
from coursekit.notebooks.answers import read_answer

ROOT = Path(__file__).parents[1]
STOCK_IS_WRONG = ("warns",)
Scores = dict[str, dict[str, float]]  # student -> test cell -> points


def make_class(folder: Path, slug: str) -> Course:
    """Return a course folder in which each recorded answer is a student, as are reference and stub."""
    course = init_course(folder, sources=[ROOT / "solutions" / f"{slug}.py"])
    released = json.loads(course.release(slug).read_bytes())
    solved = {
        cell["metadata"]["nbgrader"]["grade_id"]: cell["source"]
        for cell in json.loads(course.source(slug).read_bytes())["cells"]
        if cell["cell_type"] == "code" and cell["metadata"].get("nbgrader", {}).get("solution")
    }
    answers: dict[str, Mapping[str, str]] = {"reference": solved, "stub": {}}
    for path in sorted((ROOT / "tests/exercises" / slug).glob("*.py")):
        if path.stem not in STOCK_IS_WRONG:
            answers[path.stem] = {**solved, **read_answer(path).cells}
    for name, sources in answers.items():
        notebook = copy.deepcopy(released)
        for cell in notebook["cells"]:
            name_of_cell = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if cell["cell_type"] == "code" and name_of_cell in sources:
                cell["source"] = sources[name_of_cell]
        path = course.submitted(name.replace("_", "-"), slug) / f"{slug}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))
    return course


def points(course: Course, slug: str) -> Scores:
    """Return what the machine gave, from nbgrader's gradebook."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course.gradebook}") as book:
        return {
            submission.student.id: {
                grade.name: grade.auto_score or 0.0
                for grade in submission.notebooks[0].grades
                if grade.cell.cell_type == "code"
            }
            for submission in book.assignment_submissions(slug)
        }


def differences(ours: Scores, stock: Scores) -> list[str]:
    return [
        f"{student}, {cell}: {ours.get(student, {}).get(cell)} here, {stock.get(student, {}).get(cell)} stock"
        for student in sorted({*ours, *stock})
        for cell in sorted({*ours.get(student, {}), *stock.get(student, {})})
        if ours.get(student, {}).get(cell) != stock.get(student, {}).get(cell)
    ]


def compare(slug: str) -> list[str]:
    """Grade the class of an exercise twice; return where the two differ."""
    with tempfile.TemporaryDirectory() as folder:
        course = make_class(Path(folder, "ours"), slug)
        other = Course(Path(folder, "stock"))
        shutil.copytree(course.root, other.root)
        make_stock(other, slug)
        start = time.monotonic()
        grade_ours(course, slug)
        middle = time.monotonic()
        grade_stock(other, slug)
        end = time.monotonic()
        ours, stock = points(course, slug), points(other, slug)
    found = differences(ours, stock)
    cells = sum(map(len, ours.values()))
    verdict = f"{len(found)} differ" if found else "all equal"
    print(
        f"{slug:<26} {len(ours):>3} submissions, {cells:>4} scores: {verdict}"
        f" ({middle - start:.0f} s, stock {end - middle:.0f} s)",
        flush=True,
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    slugs = sorted(path.stem for path in (ROOT / "solutions").glob("*.py"))
    parser.add_argument("exercise", nargs="*", choices=slugs, default=slugs)
    found = [f"{slug}: {line}" for slug in parser.parse_args().exercise for line in compare(slug)]
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
