"""How many submissions a minute does each grader make, at how many CPU-seconds each?

    python benchmarks/grading.py
    python benchmarks/grading.py --students 40 --rounds 1 --grader "stock nbgrader" "coursekit grade"

The second form is the comparison that matters, in about six minutes on two cores.

Every grader is given the same class in a course folder of its own: good submissions to an exercise, as many
as `--students` says. They take turns, `--rounds` times, in random order; each must have given the same
points. Stock nbgrader grades in one process, it has no other way; the others two submissions at a time.

CPU-seconds are those of all processes that a grader starts, sampled forty times a second from /proc, since
processes that nobody waits for leave no trace in their parent's account. What a process takes between its
last sample and its end is lost: a hundredth of a second or so each. Linux only.

"floor" is the notebook's own code, run in a fork of a process that has its imports: no grader that runs it
in a process of its own can take less. Stages are those of `coursekit grade` with one worker, without its own
start.

otter-grader is no dependency of this project; to have it without changing its environment:

    pip install --target peers --no-deps otter-grader==7.0.0 fica python-on-whales pandas wrapt dill \
        python-frontmatter ipylab pypdf
    PYTHONPATH=peers python benchmarks/grading.py
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from grading_tasks.graders import GRADERS, WORKERS, Grader

from coursekit.grading.course import Course
from coursekit.grading.create import init_course

ROOT = Path(__file__).parents[1]
EXERCISES = {
    "light": ROOT / "benchmarks/grading_tasks/light.py",
    "gradient_accumulation": ROOT / "solutions/gradient_accumulation.py",
}
SAMPLE_SECONDS = 0.025
TICKS = os.sysconf("SC_CLK_TCK")


class Processor:
    """Adds up the processor time of all descendants of this process while it is entered."""

    def __enter__(self) -> Processor:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whoever loses its parent stays ours
        self.ticks: dict[tuple[int, str], int] = {}
        self._before = set(_descendants())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Processor seconds seen."""
        return sum(self.ticks.values()) / TICKS

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for key, ticks in _descendants().items():
                if key not in self._before:
                    self.ticks[key] = ticks


def _descendants() -> dict[tuple[int, str], int]:
    """Return (pid, start time) -> ticks of every descendant of this process."""
    parents, ticks = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)] = int(words[1])
            ticks[int(name)] = (words[19], int(words[11]) + int(words[12]))
    ours = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in ours and pid not in ours}:
        ours |= new
    return {(pid, ticks[pid][0]): ticks[pid][1] for pid in ours - {os.getpid()} if pid in ticks}


def make_class(folder: Path, source: Path, *, students: int) -> Course:
    """Return a course folder with so many good submissions, each a little different."""
    course, slug = init_course(folder, sources=[source]), source.stem
    released = json.loads(course.release(slug).read_bytes())
    solved = {
        cell["metadata"]["nbgrader"]["grade_id"]: "".join(cell["source"])
        for cell in json.loads(course.source(slug).read_bytes())["cells"]
        if cell["metadata"].get("nbgrader", {}).get("solution")
    }
    for number in range(students):
        notebook = copy.deepcopy(released)
        for cell in notebook["cells"]:
            answer = solved.get(cell["metadata"].get("nbgrader", {}).get("grade_id"))
            if answer is not None:
                lines = [line for line in answer.split("\n") if "### " not in line]
                cell["source"] = "\n".join([*lines, f"# student {number}"])
        path = course.submitted(f"s{number:03}", slug) / f"{slug}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))
    return course


def measure(grader: Grader, origin: Course, slug: str, folder: Path) -> dict:
    """Grade a copy of the class; return wall and CPU seconds, and the points of the first student."""
    shutil.copytree(origin.root, folder)
    course = Course(folder)
    grader.prepare(course, slug)
    start = time.monotonic()
    with Processor() as processor:
        grader.grade(course, slug)
        wall = time.monotonic() - start
        time.sleep(0.2)  # what it leaves running for a moment is its cost as well
    student = course.students(slug)[0]
    return {"grader": grader.name, "wall": wall, "cpu": processor.seconds} | {
        "points": grader.score(course, slug, student)
    }


def floor(origin: Course, slug: str, *, rounds: int) -> float:
    """Return the CPU-seconds of the notebook's own code in a fork of a process that has its imports."""
    notebook = json.loads((origin.root / "submitted/s000" / slug / f"{slug}.ipynb").read_bytes())
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    imports = "\n".join(
        line for text in sources for line in text.split("\n") if line.startswith(("import ", "from "))
    )
    exec(imports, {})
    seen = []
    for _ in range(rounds):
        before = os.times()
        pid = os.fork()
        if pid == 0:
            _run_cells(sources)
        os.waitpid(pid, 0)
        after = os.times()
        own = after.children_user + after.children_system
        seen.append(own - before.children_user - before.children_system)
    return statistics.median(seen)


def _run_cells(sources: list[str]) -> None:
    import linecache

    namespace: dict = {"__name__": "__main__"}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = 0
    try:
        for number, text in enumerate(sources):
            linecache.cache[f"<{number}>"] = (len(text), None, text.splitlines(keepends=True), f"<{number}>")
            exec(compile(text, f"<{number}>", "exec"), namespace)
    except BaseException:
        status = 1
    os._exit(status)


def rows_of(slug: str, seen: list[dict], *, students: int, own: float) -> list[dict]:
    points = {(run["grader"], run["points"]) for run in seen}
    if len({given for _, given in points}) > 1:
        raise RuntimeError(f"not the same work: {points}")
    rows = []
    for name in dict.fromkeys(run["grader"] for run in seen):
        runs = [run for run in seen if run["grader"] == name]
        stock = [run for run in seen if run["grader"] == GRADERS[0].name]
        faster = [s["wall"] / r["wall"] for s, r in zip(stock, runs, strict=True)]
        cpu = statistics.median(run["cpu"] for run in runs) / students
        rows.append(
            {
                "exercise": slug,
                "grader": name,
                "points": runs[0]["points"],
                "submissions_per_minute": 60 * students / statistics.median(run["wall"] for run in runs),
                "cpu_seconds": cpu,
                "pipeline_cpu_seconds": cpu - own,
                "to_stock": statistics.median(faster),
                "to_stock_range": [min(faster), max(faster)],
            }
        )
    return rows


def show(row: dict) -> None:
    low, high = row["to_stock_range"]
    print(
        f"{row['exercise']:<22} {row['grader']:<16} {row['points']:>6g} "
        f"{row['submissions_per_minute']:>10.1f} "
        f"{row['cpu_seconds']:>8.2f} {row['pipeline_cpu_seconds']:>10.2f}   "
        f"{row['to_stock']:.1f} ({low:.1f} to {high:.1f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--students", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--grader",
        choices=[grader.name for grader in GRADERS],
        nargs="*",
        help="stock nbgrader must be among them",
    )
    parser.add_argument("--exercise", choices=EXERCISES, nargs="*", default=list(EXERCISES))
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks/grading.json"))
    options = parser.parse_args()
    chosen = [grader for grader in GRADERS if options.grader is None or grader.name in options.grader]
    graders = [grader for grader in chosen if grader.there]
    for grader in set(chosen) - set(graders):
        print(f"{grader.name} is left out: {grader.needs} is not installed; see the top of this file")
    heads = ("exercise", "grader", "points", "a minute", "CPU s", "pipeline's")
    print("{:<22} {:<16} {:>6} {:>10} {:>8} {:>10}   to stock".format(*heads))
    rows, order = [], random.Random(0)
    from grading_tasks.stages import stages

    facts = {"floor_cpu_seconds": {}, "stages": {}}
    for slug in options.exercise:
        with tempfile.TemporaryDirectory() as folder:
            origin = make_class(Path(folder, "origin"), EXERCISES[slug], students=options.students)
            own = facts["floor_cpu_seconds"][slug] = floor(origin, slug, rounds=5)
            seen: list[dict] = []
            for number in range(options.rounds):
                for grader in order.sample(graders, len(graders)):
                    place = Path(folder, f"{number}-{grader.name.split()[0]}")
                    seen.append(measure(grader, origin, slug, place))
            rows += rows_of(slug, seen, students=options.students, own=own)
            for row in rows[-len(graders) :]:
                show(row)
            facts["stages"][slug] = stages(origin, slug)
        print(
            f"{slug}: floor {own:.2f} CPU s; stages: "
            + ", ".join(
                f"{stage} {share:.0%}".replace("%", " %") for stage, share in facts["stages"][slug].items()
            )
        )
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": sys.version.split()[0]}
    facts |= {"machine": machine, "workers": WORKERS, "students": options.students, "rounds": options.rounds}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
