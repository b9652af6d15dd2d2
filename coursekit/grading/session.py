"""A session: what the main process does with each submission before and after it is run."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from coursekit.errors import require
from coursekit.grading.check import score_cells, unscored
from coursekit.grading.course import Course
from coursekit.grading.create import release_exercise
from coursekit.grading.intake import (
    RejectedError,
    Submission,
    can_be_found,
    fingerprint,
    parse_answers,
    read_submission,
)
from coursekit.grading.journal import stamped_version
from coursekit.grading.nbgrader_tools import find_programs
from coursekit.grading.rebuild import Rebuilt, rebuild
from coursekit.grading.record import Recorder, valid_timestamp
from coursekit.grading.report import Result, total
from coursekit.grading.run import Job, Run, run_notebook, start_templates
from coursekit.grading.sandbox.probe import sandbox_for
from coursekit.grading.template import exercise_version, load_template, sibling_files

if TYPE_CHECKING:
    from coursekit.grading.pipeline import Options


@dataclass(frozen=True)
class _Pending:
    """A submission whose notebook is being run."""

    submission: Submission
    digest: str
    rebuilt: Rebuilt
    flags: tuple[str, ...]


class Session:
    """Grades submissions to one assignment; a context manager that holds the gradebook open.

    local: whether notebooks run as children of this process.
    """

    def __init__(self, course: Course, assignment: str, *, options: Options, local: bool = True) -> None:
        self.course, self.assignment, self.options = course, assignment, options
        version = exercise_version(course, assignment)
        stale = stamped_version(course.gradebook, assignment) != version
        if stale or not course.release(assignment).is_file():
            release_exercise(course, assignment)
        self.template = load_template(course, assignment)
        self.files = sibling_files(course, assignment)
        self.sandbox = sandbox_for(
            self.template.notebook,
            options.limits.notebook_seconds,
            # Where others run the notebooks, each of them asks for what its own machine grants.
            allow_unsandboxed=options.allow_unsandboxed or options.scheduler is not None,
        )
        self._run = run_notebook
        if local:
            turns = threading.BoundedSemaphore(options.workers)
            self._run = functools.partial(run_notebook, turn=turns)
            find_programs()  # changes the PATH, which kernels share
            # They import torch while this process imports nbgrader.
            start_templates(self._job(self.template.notebook))
        self.recorder = Recorder(course, assignment, version=version)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.recorder.close()

    def grade(self, students: Iterable[str], pool: Executor) -> Iterator[Result]:
        """Yield a result for each student as it is recorded; never raises for the sake of one submission."""
        running: dict[Future[Run], _Pending] = {}
        # A few more than workers, so that none waits; not all, so that memory does not grow with the class.
        window = 2 * self.options.workers
        for student in students:
            yield from self._begin(student, pool, running)
            while len(running) >= window:
                yield from self._collect(running)
        while running:
            yield from self._collect(running)

    def _begin(self, student: str, pool: Executor, running: dict[Future[Run], _Pending]) -> Iterator[Result]:
        """Hand one submission to the workers, or yield its result if there is nothing to run."""
        try:
            pending, job = self._prepare(student)
        except RejectedError as error:
            yield self._recorded(self._reject, student, str(error))
        except Exception as error:  # whatever it is, it is this submission's
            yield self._failed(student, error)
        else:
            running[pool.submit(self._run, job)] = pending

    def _prepare(self, student: str) -> tuple[_Pending, Job]:
        submission = read_submission(self.course, self.assignment, student=student)
        digest = submission.sha256
        if not valid_timestamp(submission.timestamp):
            submission = replace(submission, timestamp=None, flags=(*submission.flags, "bad_timestamp"))
        rebuilt = rebuild(self.template, parse_answers(submission.data))
        notebook, flags = _without_forbidden(rebuilt.notebook)
        pending = _Pending(submission, digest, rebuilt, (*submission.flags, *rebuilt.flags, *flags))
        return pending, self._job(notebook)

    def _job(self, notebook: dict[str, Any]) -> Job:
        return Job(
            json.dumps(notebook).encode(),
            self.files,
            self.options.limits,
            self._environment(),
            student_names=self.template.student_names,
            hidden_tests=self.template.hidden_tests,
            tests_in_place=self.options.tests_in_place,
            sandbox=self.sandbox,
        )

    def _collect(self, running: dict[Future[Run], _Pending]) -> Iterator[Result]:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            pending = running.pop(future)
            student = pending.submission.student
            if error := future.exception():
                yield self._failed(student, error)
            else:
                yield self._recorded(self._finish, student, (pending, future.result()))

    def _recorded(self, record: Any, student: str, what: Any) -> Result:
        try:
            return record(student, what)
        except Exception as error:  # one submission that cannot be written must not stop the others
            return self._failed(student, error)

    def _failed(self, student: str, error: BaseException) -> Result:
        reason = f"{type(error).__name__}: {error}"[:500]
        cells = tuple(unscored(self.template.notebook, f"grading failed: {reason}"))
        return Result(student, "failed", None, total(cells)[1], 0.0, ("grading_failed",), cells)

    def _reject(self, student: str, reason: str) -> Result:
        from coursekit.grading.feedback import write_rejection

        cells = tuple(unscored(self.template.notebook, reason))
        result = Result(student, "rejected", *total(cells), 0.0, (f"rejected:{reason}",), cells)
        if not can_be_found(student):
            return result  # it is nobody's: in the gradebook it would stay a student after it was renamed
        write_rejection(self.course, self.assignment, student=student, reason=reason)
        self.recorder.drop_autograded(student)
        digest = fingerprint(self.course, self.assignment, student=student)
        return self.recorder.record(result, submission=digest)

    def _finish(self, student: str, what: tuple[_Pending, Run]) -> Result:
        from coursekit.grading.feedback import write_feedback

        pending, run = what
        notebook = json.loads(run.notebook)
        cells = tuple(score_cells(notebook, run.states, unanswered=pending.rebuilt.unanswered))
        changed = self.recorder.mark_changed_answers(student, run.notebook)
        flags = (*pending.flags, *_run_flags(notebook, run), *changed)
        result = Result(student, "graded", *total(cells), round(run.seconds, 2), flags, cells)
        # Files first: the transaction that ends in the journal says that everything before it is there.
        timestamp = pending.submission.timestamp
        self.recorder.write_autograded(student, notebook, timestamp=timestamp)
        # If we are killed before the new page is there, the old one must not stand beside the new grade.
        self.course.feedback(student, self.assignment).unlink(missing_ok=True)
        result = self.recorder.record(
            result,
            submission=pending.digest,
            timestamp=timestamp,
            unanswered=pending.rebuilt.unanswered,
        )
        write_feedback(self.course, self.assignment, student=student, pages=self._pages)
        return result

    @functools.cached_property
    def _pages(self) -> Any:
        from coursekit.grading.feedback import feedback_pages

        return feedback_pages(self.course, self.assignment, gradebook=self.recorder.gradebook)

    def _environment(self) -> dict[str, str]:
        # Kernels that each take every core slow each other down; they share the machine instead.
        threads = str(max(1, (os.cpu_count() or 1) // self.options.workers))
        return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def _without_forbidden(notebook: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    from coursekit.notebooks.forbidden import block_forbidden

    node = require("nbformat", extra="grading").from_dict(notebook)
    blocked, findings = block_forbidden(node)
    return blocked, [f"forbidden:{finding.name}:{finding.grade_id}" for finding in findings]


def _run_flags(notebook: dict[str, Any], run: Run) -> list[str]:
    kinds = {"timeout": "timeout", "died": "kernel_died"}
    flags = []
    for index, (cell, state) in enumerate(zip(notebook["cells"], run.states, strict=True)):
        if state in kinds:
            kind = f"used_up_{run.stopped[index]}" if index in run.stopped else kinds[state]
            flags.append(f"{kind}:{cell.get('id', '?')}")
    return flags
