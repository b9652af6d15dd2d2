"""A grader without defences, to show that each attack is one: what it reads it believes.

It runs solutions and tests in one kernel that it forks without a sandbox, takes outputs for what they say,
follows links, and has neither time limits nor bounds. Only an outer box keeps the machine alive.

    python -m tests.grading.attacks.undefended JOBS.json RESULTS.json
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import numpy as np
from ipykernel.kernelapp import IPKernelApp
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager
from nbconvert import HTMLExporter
from nbgrader.utils import parse_utc

from coursekit.grading.check import score_cells
from coursekit.grading.course import Course
from coursekit.grading.intake import parse_answers
from coursekit.grading.rebuild import rebuild
from coursekit.grading.template import load_template

from . import box, outcome
from .corpus import SLUG, Attack, Desk, Target, grade_id, hand_in
from .families import ATTACKS

STUDENT = "m_attacker"
HANGS_SECONDS, SECONDS = 5.0, 150.0
AS_IT_CAME = ("structure", "files")  # without rebuild: that is the defence against these


def grade(attack: Attack | None, target: Target, *, folder: Path) -> outcome.Outcome:
    """Return what comes of grading one submission (of an honest student, without an attack).

    Whatever it raises is what would have stopped a batch.
    """
    course = Course(target.course)
    work = folder / "work"
    before = outcome.snapshot(course.root)
    os.chdir(course.root)  # where an instructor stands
    with open(course.gradebook, "rb"):
        notebook = _as_submitted(course, attack, work)
        with Kernel(folder, work) as kernel:
            for cell in notebook["cells"]:
                kernel.run(cell)
            answer = kernel.fetch("double(2.0)") if attack and attack.family == "poisoned" else None
    said = _look_at(answer)
    said += HTMLExporter().from_notebook_node(nbformat.from_dict(notebook))[0] if _is_page(attack) else ""
    return outcome.Outcome(
        score=_score(notebook),
        page=said + _visible_outputs(notebook),
        size=len(json.dumps(notebook)) + len(said),
        changed=outcome.snapshot(course.root) != before,
    )


def _is_page(attack: Attack | None) -> bool:
    return attack is not None and attack.family == "html"


def _as_submitted(course: Course, attack: Attack | None, work: Path) -> dict[str, Any]:
    """Return the notebook to run; with the tests put back that the student did not have, or did not touch."""
    folder = course.submitted(STUDENT, SLUG)
    shutil.copytree(folder, work, symlinks=True)
    if (folder / "timestamp.txt").exists():
        parse_utc((folder / "timestamp.txt").read_text())
    data = (folder / f"{SLUG}.ipynb").read_bytes()
    template = load_template(course, SLUG)
    if attack is None or attack.family not in AS_IT_CAME:
        return rebuild(template, parse_answers(data)).notebook
    notebook = json.loads(data)
    KernelSpecManager().get_kernel_spec(notebook["metadata"]["kernelspec"]["name"])
    tests = {grade_id(cell): cell["source"] for cell in template.notebook["cells"] if grade_id(cell)}
    for cell in notebook["cells"]:
        name, cell["source"] = grade_id(cell), "".join(cell["source"])
        if name in tests and cell["source"].strip() == template.released[name].strip():
            cell["source"] = tests[name]
    return notebook


def _score(notebook: dict[str, Any]) -> float:
    states = tuple("ok" for _ in notebook["cells"])
    return sum({cell.grade_id: cell.score or 0.0 for cell in score_cells(notebook, states)}.values())


def _visible_outputs(notebook: dict[str, Any]) -> str:
    cells = [cell for cell in notebook["cells"] if "hidden" not in grade_id(cell)]
    return json.dumps([cell.get("outputs") for cell in cells])


def _look_at(answer: bytes | None) -> str:
    """Return what a grader writes about an answer that came by pickle."""
    if answer is None:
        return ""
    value = pickle.loads(answer)
    np.array(value)
    return f"expected 4.0, got {value!r}"


class Kernel:
    """A kernel that is forked from here, with nothing between it and the machine."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.connection = str(folder / "kernel.json")
        write_connection_file(self.connection, transport="ipc", ip=str(folder / "s"))
        self.work = work

    def __enter__(self) -> Kernel:
        self.pid = os.fork()
        if self.pid == 0:
            _be_a_kernel(self.connection, self.work)
        self.client = BlockingKernelClient(connection_file=self.connection)
        self.client.load_connection_file()
        # Without heartbeats: a kernel that hears none for a second on a busy machine would count as dead.
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        with suppress(ProcessLookupError, ChildProcessError):  # it may have died, and be buried
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)  # what is left after it is not itself

    def run(self, cell: dict[str, Any]) -> None:
        """Run a cell as nbclient does, and put its outputs into it."""
        skipped = "skip-execution" in cell["metadata"].get("tags", [])
        cell["execution_count"] = 1  # stock nbgrader does not ask whether a cell ran
        if cell["cell_type"] != "code" or skipped or not cell["source"].strip():
            return
        request = self.client.execute(cell["source"], allow_stdin=False)
        cell["outputs"] = []
        while True:
            kind, content = self._next(request)
            if kind == "status" and content["execution_state"] == "idle":
                return
            if kind in ("stream", "display_data", "execute_result", "error"):
                content.pop("transient", None)
                cell["outputs"].append({"output_type": kind, **content})

    def fetch(self, expression: str) -> bytes | None:
        """Return the pickle of an expression's value, or None if the student's code raised."""
        source = f"import pickle as _p\nopen('answer.pickle', 'wb').write(_p.dumps({expression}))"
        self.run({"cell_type": "code", "metadata": {}, "source": source})
        path = self.work / "answer.pickle"
        return path.read_bytes() if path.exists() and path.stat().st_size else None

    def _next(self, request: str) -> tuple[str, dict[str, Any]]:
        while True:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                raise RuntimeError("the kernel died")
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") == request:
                return message["msg_type"], message["content"]


def _be_a_kernel(connection: str, work: Path) -> None:
    os.chdir(work)
    sys.modules.pop("yaml", None)  # a kernel that is not forked from here would not have it
    kernel = IPKernelApp.instance()
    kernel.initialize(["-f", connection, "--HistoryManager.enabled=False"])
    kernel.start()
    os._exit(0)


def _child(job: dict[str, Any], result: Path) -> None:
    """Grade in a process of its own, and write what can be seen afterwards."""
    os.setsid()
    attack = ATTACKS.get(job["attack"])
    wide = attack is not None and attack.family == "exhaustion"
    box.enter(address_space=(40 if wide else 4) * 2**30)
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(devnull, descriptor)
    target = Target(Path(job["course"]), Path(job["outside"]), job["port"])
    try:
        seen = asdict(grade(attack, target, folder=result.parent))
    except BaseException as error:  # what stops the grader is what the attack was after
        seen = asdict(outcome.Outcome(page=f"{type(error).__name__}: {error}"[:1000]))
    seen["survivors"] = box.left_over(seconds=0.3)
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(seen))
    partial.rename(result)
    os._exit(0)


def _start(job: dict[str, Any]) -> int:
    """Hand the attack in to a course of its own, and return the process that grades it."""
    course = Path(job["course"])
    shutil.copytree(job["origin"], course)
    target = Target(course, Path(job["outside"]), job["port"])
    released = json.loads(Course(course).release(SLUG).read_bytes())
    desk = Desk(released, Course(course).submitted(STUDENT, SLUG), attack=job["attack"], target=target)
    if job["attack"] in ATTACKS:
        hand_in(ATTACKS[job["attack"]], desk)
    else:
        desk.folder.mkdir(parents=True)
        desk.write(desk.notebook())
    pid = os.fork()
    if pid == 0:
        _child(job, Path(job["folder"]) / "result.json")
    return pid


def _grade_all(jobs: list[dict[str, Any]], *, at_once: int) -> None:
    """Run a few graders at a time; one that hangs is killed. No threads: they do not go with forks."""
    waiting, running = list(reversed(jobs)), {}
    while waiting or running:
        while waiting and len(running) < at_once:
            job = waiting.pop()
            hangs = job["attack"] in ATTACKS and ATTACKS[job["attack"]].gain == "no_grade"
            running[_start(job)] = time.monotonic() + (HANGS_SECONDS if hangs else SECONDS)
        for pid, end in list(running.items()):
            ended = os.waitpid(pid, os.WNOHANG)[0]
            if ended or time.monotonic() > end:
                box.kill_group(pid)
                if not ended:
                    os.waitpid(pid, 0)
                del running[pid]
        time.sleep(0.02)


def main() -> None:
    """Grade the jobs of a file, a few at a time, and write their outcomes."""
    jobs, seen = json.loads(Path(sys.argv[1]).read_text()), []
    box.adopt()  # what a killed grader leaves behind comes to us, and is killed below
    _grade_all(jobs, at_once=4)
    box.left_over(seconds=0)
    for job in jobs:
        result = Path(job["folder"]) / "result.json"
        seen.append(json.loads(result.read_text()) if result.exists() else asdict(outcome.Outcome()))
    Path(sys.argv[2]).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
