"""The pipeline: what has to be graded, by whom it is run, and the results in order.

The main process reads, scores and writes (see `session`); only `run_notebook` goes to the workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from coursekit.errors import InputError
from coursekit.grading import journal
from coursekit.grading.backup import back_up
from coursekit.grading.course import Course
from coursekit.grading.intake import fingerprint
from coursekit.grading.report import Result
from coursekit.grading.run import Limits
from coursekit.grading.template import exercise_version

if TYPE_CHECKING:
    from coursekit.grading.cluster import ClusterExecutor
    from coursekit.grading.nbgrader_tools import Conversion

OnResult = Callable[[Result, bool], None]


@dataclass(frozen=True)
class Options:
    """How to grade: which students (all if empty), how many at once, whether again, within which limits.

    tests_in_place: run tests in the student's own kernel, for exercises whose tests were not written to cross
        to a trusted process. A student's code can then change what the tests say.
    allow_unsandboxed: go on where this machine does not keep students' code from the grader's files, the
        network or other processes.
    scheduler: address of a Dask scheduler whose workers run the notebooks, in the place of this machine's.
    """

    students: Sequence[str] = ()
    workers: int = 1
    force: bool = False
    limits: Limits = field(default_factory=Limits)
    tests_in_place: bool = False
    allow_unsandboxed: bool = False
    scheduler: str | None = None


def grade_assignment(
    course: Course,
    assignment: str,
    *,
    options: Options | None = None,
    executor: Executor | None = None,
    on_result: OnResult | None = None,
) -> list[Result]:
    """Grade the submissions to an assignment and return a result for each, in the order of the students.

    Args:
        course: the course folder.
        assignment: the exercise's slug.
        options: students, workers, limits.
        executor: carries the runs; by default threads, each of which waits for one kernel, or the cluster of
            `options.scheduler`.
        on_result: called with each result as it comes, and whether it was kept from an earlier run.
    Raises: InputError if the assignment is not there, nobody knows a student that was named, or this machine
        refuses what the sandbox needs.
    """
    options = options or Options()
    course.require(assignment)
    _require_students(course, options.students)
    students = list(dict.fromkeys(options.students)) or course.students(assignment)
    kept = {} if options.force else _kept(course, assignment, students, on_result)
    todo = [student for student in students if student not in kept]
    fresh = _grade(course, assignment, todo, options, executor, on_result) if todo else {}
    return [(kept | fresh)[student] for student in students]


def _require_students(course: Course, students: Iterable[str]) -> None:
    """Refuse ids that are neither on the roster nor in submitted/: grading would enter them as students."""
    from coursekit.grading.roster import read_students

    folder = course.root / "submitted"
    handed_in = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    known = {student.id for student in read_students(course)} | set(handed_in)
    for student in students:
        if student not in known:
            close = get_close_matches(student, sorted(known), cutoff=0.5)
            fix = f"did you mean {' or '.join(close)}?" if close else "see: coursekit course roster"
            expected = "an id of the roster or of submitted/"
            raise InputError("no such student", expected=expected, got=repr(student), fix=fix)


def unchanged(course: Course, assignment: str, *, students: Iterable[str]) -> dict[str, Result]:
    """Return the results of earlier runs that still hold: same submission, same exercise, same pipeline.

    Loads nothing but the standard library, so that a run with nothing to do takes no time.
    """
    version = exercise_version(course, assignment)
    earlier = journal.read(course.gradebook, assignment)
    hand = journal.by_hand(course.gradebook, assignment)
    results = {}
    for student in students:
        submission, graded_version, result = earlier.get(student, ("", "", None))
        complete = result and (
            result.status == "rejected" or course.autograded(student, assignment).is_file()
        )
        same = complete and graded_version == version
        if same and submission == fingerprint(course, assignment, student=student):
            results[student] = journal.with_hand_grades(result, hand)
    return results


def _kept(
    course: Course, assignment: str, students: list[str], on_result: OnResult | None
) -> dict[str, Result]:
    """Return the results that still hold, each with its page: who was killed after a grade owes that one."""

    @functools.cache  # to make them takes longer than a page does
    def pages() -> Conversion:
        from coursekit.grading.feedback import feedback_pages

        return feedback_pages(course, assignment)

    kept = {}
    for student, result in unchanged(course, assignment, students=students).items():
        if course.feedback(student, assignment).is_file() or _write_page(course, assignment, result, pages):
            kept[student] = result
            if on_result:
                on_result(result, True)
    return kept


def _write_page(course: Course, assignment: str, result: Result, pages: Callable[[], Conversion]) -> bool:
    """Write the page of a result that is noted; return whether that went well."""
    from coursekit.grading.feedback import write_feedback, write_rejection

    try:
        if result.status == "rejected":
            reason = result.cells[0].message if result.cells else ""
            write_rejection(course, assignment, student=result.student, reason=reason)
        else:
            write_feedback(course, assignment, student=result.student, pages=pages())
    except Exception:  # whatever it is, it must not stop the others: this submission is graded again
        return False
    return True


def _grade(
    course: Course,
    assignment: str,
    todo: list[str],
    options: Options,
    executor: Executor | None,
    on_result: OnResult | None,
) -> dict[str, Result]:
    from coursekit.grading.session import Session

    results = {}
    with ExitStack() as stack:
        if options.scheduler and executor is None:
            executor = stack.enter_context(_cluster(options))
            options = replace(options, workers=executor.num_workers)
        back_up(course)
        session = Session(course, assignment, options=options, local=executor is None)
        stack.enter_context(session)
        pool = executor or stack.enter_context(ThreadPoolExecutor(_threads(options.workers)))
        stack.enter_context(_kernels_die_with_us())
        for result in session.grade(todo, pool):
            results[result.student] = result
            if on_result:
                on_result(result, False)
    return results


def _threads(workers: int) -> int:
    """Return how many notebooks are worked on so that the cells of `workers` of them always run.

    The start and the end of a kernel take about as long as the cells of a light exercise, much of it waiting.
    """
    return workers + (workers + 1) // 2


def _cluster(options: Options) -> ClusterExecutor:
    from coursekit.grading.cluster import ClusterExecutor

    return ClusterExecutor(str(options.scheduler), allow_unsandboxed=options.allow_unsandboxed)


@contextmanager
def _kernels_die_with_us():
    """On an interrupt, kill the kernels that run, so that the threads which wait for them end at once."""
    try:
        yield
    except BaseException:
        import psutil

        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it ended by itself meanwhile
                child.kill()
        raise
