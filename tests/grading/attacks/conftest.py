"""A course full of secrets, a listener, and the two gradings that the attacks are compared in."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coursekit.grading.course import Course
from coursekit.grading.create import init_course

from . import box, outcome
from .corpus import ANSWERS, SLUG, Desk, Target, hand_in
from .families import ATTACKS

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name(f"{SLUG}.py")
KINDS = ("solution", "hidden", "neighbour", "environment")


class Range:
    """Where attacks are run: the course that they are aimed at, its secrets, and who called the listener."""

    def __init__(self, origin: Course, canaries: dict[str, str], listener: socketserver.TCPServer) -> None:
        self.origin, self.canaries, self.listener = origin, canaries, listener
        self.callers: list[str] = []

    @property
    def secrets(self) -> list[str]:
        """The canaries."""
        return list(self.canaries.values())

    def defended(self, folder: Path, names: list[str], **environment: str) -> dict[str, outcome.Outcome]:
        """Grade a class of these attackers by the pipeline; return their outcomes, and the neighbour's."""
        course = Course(folder / "course")
        shutil.copytree(self.origin.root, course.root)
        target = self._target(course, folder)
        if "ORDINARY_USER" in environment:  # by the paths that he knows
            target = replace(target, course=box.SHARED / "course", outside=box.SHARED / "outside")
        released = json.loads(course.release(SLUG).read_bytes())
        for name in names:
            desk = Desk(released, course.submitted(f"m_{name}", SLUG), attack=name, target=target)
            hand_in(ATTACKS[name], desk)
        before, report = outcome.snapshot(course.root), folder / "report.json"
        said = self.run("defended", str(course.root), str(report), folder=course.root, **environment)
        left = outcome.Outcome(
            changed=outcome.snapshot(course.root) != before,
            survivors=json.loads(said),
            marks=outcome.marks(folder / "outside", names),
            callers=self._called(),
        )
        results = {r["student"]: r for r in json.loads(report.read_text())["submissions"]}
        students = {name: f"m_{name}" for name in names} | {"neighbour": "z_neighbour"}
        return {name: _of(course, results.get(student), left) for name, student in students.items()}

    def undefended(self, folder: Path, names: list[str]) -> dict[str, outcome.Outcome]:
        """Grade each attack by itself without defences; return the outcomes, and an honest student's."""
        jobs = []
        for number, name in enumerate([*names, "honest"]):
            own = folder / f"{number}"
            course, port = Course(own / "course"), self.listener.server_address[1]
            own.mkdir()
            (own / "outside").mkdir()
            jobs.append({"attack": name, "course": str(course.root), "folder": str(own), "port": port})
            jobs[-1] |= {"outside": str(own / "outside"), "origin": str(self.origin.root)}
        (folder / "jobs.json").write_text(json.dumps(jobs))
        results = folder / "results.json"
        self.run("undefended", str(folder / "jobs.json"), str(results), folder=folder)
        seen = json.loads(results.read_text())
        found = [name for job in jobs for name in outcome.marks(Path(job["outside"]), names)]
        left = {"marks": found, "callers": self._called()}
        return {
            job["attack"]: outcome.Outcome(**{**one, **left}) for job, one in zip(jobs, seen, strict=True)
        }

    def _target(self, course: Course, folder: Path) -> Target:
        outside = folder / "outside"
        outside.mkdir()
        return Target(course.root, outside, self.listener.server_address[1])

    def run(self, module: str, *arguments: str, folder: Path, **environment: str) -> str:
        """Run a module of this package, and return what it printed."""
        ours = {"PYTHONPATH": str(ROOT), "A_SECRET": self.canaries["environment"]}
        environment = {**os.environ, **ours, **environment}
        command = [sys.executable, "-m", f"tests.grading.attacks.{module}", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return done.stdout.decode()

    def _called(self) -> list[str]:
        called = list(self.callers)
        self.callers.clear()  # the listener's own list: a new one it would not know
        return called


def _of(course: Course, result: dict | None, left: outcome.Outcome) -> outcome.Outcome:
    """Return the outcome of one student of a class."""
    if result is None or result["status"] == "failed":
        return outcome.Outcome()
    page = course.feedback(result["student"], SLUG)
    executed = course.autograded(result["student"], SLUG)
    return outcome.Outcome(
        **{
            **vars(left),
            "score": result["score"],
            "page": page.read_text() if page.is_file() else "",
            "size": executed.stat().st_size if executed.is_file() else 0,
        }
    )


@contextmanager
def _listening():
    """Listen on a free port; yield the server and the list of names that callers sent."""
    callers: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            callers.append(self.rfile.readline(200).decode("utf-8", "replace").strip())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server, callers
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def alone():
    """One test of attacks at a time, whatever process it is in: they look for marks in the same places."""
    with open(Path(tempfile.gettempdir(), "coursekit-attacks.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def attack_range(tmp_path_factory):
    """A course with a witness, who is graded already, and a good neighbour, who will be."""
    folder = tmp_path_factory.mktemp("range")
    canaries = {kind: f"canary-{kind}-{secrets.token_hex(6)}" for kind in KINDS}
    text = SOURCE.read_text()
    for kind in ("solution", "hidden"):
        text = text.replace(f"CANARY_{kind.upper()}", canaries[kind])
    (folder / SOURCE.name).write_text(text)
    course = init_course(folder / "course", sources=[folder / SOURCE.name])
    released = json.loads(course.release(SLUG).read_bytes())
    target = Target(course.root, folder, 0)
    for student in ("a_witness", "z_neighbour"):
        desk = Desk(released, course.submitted(student, SLUG), attack="", target=target)
        desk.folder.mkdir(parents=True)
        desk.write(desk.notebook(**ANSWERS, explain=canaries["neighbour"]))
    with _listening() as (server, callers):
        place = Range(course, canaries, server)
        place.callers = callers
        place.run("defended", str(course.root), str(folder / "r.json"), "a_witness", folder=course.root)
        yield place
