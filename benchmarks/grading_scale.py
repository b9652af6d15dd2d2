"""What does a very large class cost the process that reads, scores and records it?

    python benchmarks/grading_scale.py --students 10000

Every submission is read, rebuilt, checked, scored, recorded in the gradebook and given its page, as in
`coursekit grade`; the notebook itself is run once, in a kernel, and what came of that stands for all, since
kernels are processes of their own and end with their notebook. So this is the part that could grow with
the class: each row is a tenth of it, with the processor time of one submission, the memory of the process
and the size of the gradebook. Then what an instructor does next: the same command again, which finds nothing
to do, the class report, and the export.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import psutil
from grading import EXERCISES, make_class

from coursekit.grading.course import Course
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.run import Job, Run, run_notebook

MIB = 2**20


class OneRun(Executor):
    """Runs the first notebook that it is given, and answers every later one with what came of that."""

    def __init__(self) -> None:
        self.first: Run | None = None

    def submit(self, function: Any, /, job: Job) -> Future[Run]:
        """Return a future that is done."""
        assert function is run_notebook
        self.first = self.first or function(job)
        future: Future[Run] = Future()
        future.set_result(self.first)
        return future


def grade(course: Course, slug: str, *, students: int) -> list[dict[str, float]]:
    """Grade the class; return figures for each tenth of it."""
    rows, done, process = [], 0, psutil.Process()
    start = time.process_time(), time.monotonic()

    def on_result(result: Any, kept: bool) -> None:
        nonlocal done, start
        if kept or result.status != "graded":
            raise RuntimeError(f"not graded: {result}")
        done += 1
        if done % (students // 10):
            return
        cpu, wall = time.process_time() - start[0], time.monotonic() - start[1]
        row = {
            "submissions": done,
            "cpu_seconds_each": cpu * 10 / students,
            "wall_seconds_each": wall * 10 / students,
            "memory_mib": process.memory_info().rss / MIB,
            "gradebook_mib": course.gradebook.stat().st_size / MIB,
        }
        rows.append(row)
        print("{:>11,} {:>9.4f} {:>9.4f} {:>11.0f} {:>14.1f}".format(*row.values()), flush=True)
        start = time.process_time(), time.monotonic()

    print(f"{'submissions':>11} {'CPU s':>9} {'wall s':>9} {'memory MiB':>11} {'gradebook MiB':>14}")
    grade_assignment(course, slug, options=Options(workers=2), executor=OneRun(), on_result=on_result)
    return rows


def afterwards(course: Course, slug: str) -> dict[str, float]:
    """Return the seconds of what an instructor does when the class is graded, each a command."""
    commands = {
        "grade again": ["grade", slug],
        "class report": ["course", "report", ".", slug],
        "export": ["export", "grades.csv"],
    }
    seconds = {}
    for name, words in commands.items():
        start = time.monotonic()
        program = Path(sys.executable).with_name("coursekit")
        done = subprocess.run([program, *words], cwd=course.root, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr or done.stdout)[-1000:]}")
        seconds[name] = time.monotonic() - start
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--students", type=int, default=10_000, help="a multiple of ten")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks/grading_scale.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        course = make_class(Path(folder, "class"), EXERCISES["light"], students=options.students)
        rows = grade(course, "light", students=options.students)
        facts = {"rows": rows, "afterwards": afterwards(course, "light")}
    facts["machine"] = {"cpus": os.cpu_count(), "system": platform.platform(), "python": sys.version}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
