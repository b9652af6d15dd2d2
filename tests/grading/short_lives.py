"""A grading run that is killed at random moments and starts over, again and again; for `test_resume`.

    python -m tests.grading.short_lives COURSE ASSIGNMENT MEMORY LIVES

Each life is a fork of one process that has everything imported. Runs are remembered: grading a submission is
a function of its bytes, so what is left to be killed in is reading, scoring, writing. Prints the journal
after each life, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import closing
from pathlib import Path

import nbgrader.api
import nbgrader.converters  # noqa: F401  imported once, for all lives

from coursekit.grading import feedback, session  # noqa: F401
from coursekit.grading.course import Course
from coursekit.grading.journal import open_to_read
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.run import Job, Run


class Remembering(Executor):
    """Runs a job at once unless a file of this folder remembers what came of its notebook."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.pickle"

    def submit(self, function: Callable[[Job], Run], job: Job) -> Future[Run]:
        """Return a future that is done."""
        remembered, run = pickle.loads(self.path.read_bytes()) if self.path.is_file() else (None, None)
        if remembered != job.notebook:
            run = function(job)
            self.path.write_bytes(pickle.dumps((job.notebook, run)))
        future: Future[Run] = Future()
        future.set_result(run)
        return future


def read_journal(course: Course) -> dict[str, str]:
    """Return student -> which writing of their grade this is."""
    with closing(open_to_read(course.gradebook)) as connection:
        return dict(connection.execute("SELECT student, rowid || ' ' || graded_at FROM coursekit_journal"))


def main() -> None:
    """Live, be killed, tell."""
    course, assignment, memory = Course(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])

    def live(*students: str) -> int:
        pid = os.fork()
        if pid == 0:
            grade_assignment(course, assignment, options=Options(students), executor=Remembering(memory))
            os._exit(0)
        return pid

    first, *_ = sorted(set(course.students(assignment)) - read_journal(course).keys())
    start = time.monotonic()
    os.waitpid(live(first), 0)
    longest, moments = 1.5 * (time.monotonic() - start), random.Random(0)
    before = len(read_journal(course))
    for _ in range(int(sys.argv[4])):
        pid = live()
        time.sleep(moments.uniform(0.0, longest))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed, journal = os.WIFSIGNALED(status), read_journal(course)
        print(json.dumps({"killed": killed, "journal": journal}), flush=True)
        # Long enough to grade something and too short to grade all, however busy the machine becomes.
        longest *= {0: 1.25, 1: 1.0}.get(len(journal) - before, 0.8)
        before = len(journal)


if __name__ == "__main__":
    main()
