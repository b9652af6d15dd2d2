"""A large class: what recording one result costs does not grow with how many are recorded already."""

import sqlite3
from contextlib import closing

import psutil
import pytest
import sqlalchemy

from coursekit.grading import journal
from coursekit.grading.record import Recorder
from coursekit.grading.report import Result
from coursekit.grading.template import exercise_version
from coursekit.notebooks.scoring import CellScore

STEPS = 100  # SQLite calls back after so many steps of its virtual machine: work, not time


@pytest.fixture
def recorder(classroom):
    course = classroom.course
    recorder = Recorder(course, classroom.slug, version=exercise_version(course, classroom.slug))
    yield recorder
    recorder.close()


@pytest.fixture
def work(recorder):
    """Count the steps of the database's virtual machine, in hundreds."""
    steps = [0]

    def step():
        steps[0] += 1

    @sqlalchemy.event.listens_for(recorder.gradebook.engine, "checkout")
    def watch(connection, *_):
        # The disk is not what is measured here, and waiting for it takes most of the time.
        connection.execute("PRAGMA synchronous=OFF")
        connection.set_progress_handler(step, STEPS)

    return steps


def record(recorder, numbers):
    cells = (CellScore("test_add", 2.0, 2.0, "passed"), CellScore("explain", None, 2.0, "manual"))
    for number in numbers:
        result = Result(f"s{number:05d}", "graded", 2.0, 8.0, 0.1, (), cells)
        recorder.record(result, submission="bytes")


@pytest.mark.slow
def test_a_thousand_results_need_no_more_memory_and_no_more_work_each_than_a_hundred(recorder, work):
    def work_of(numbers):
        before = work[0]
        record(recorder, numbers)
        return (work[0] - before) / len(numbers)

    record(recorder, range(50))
    early = work_of(range(50, 100))
    memory = psutil.Process().memory_info().rss
    record(recorder, range(100, 950))
    late = work_of(range(950, 1000))
    assert late < 1.5 * early
    assert psutil.Process().memory_info().rss - memory < 32 * 2**20
    # The control: without an index that we add to nbgrader's tables, every record reads the whole class.
    recorder._execute("DROP INDEX coursekit_grade_notebook")
    recorder.gradebook.db.commit()
    assert work_of(range(1000, 1010)) > 2 * late


def test_what_is_asked_of_one_student_reads_no_other(classroom, recorder):
    # No cache of statements: a plan that was asked for once would be shown again after the index is gone.
    with closing(sqlite3.connect(classroom.course.gradebook, cached_statements=0)) as connection:

        def reads_all(query, values):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", values)
            return any(row[3].startswith("SCAN grade") for row in plan)

        for query in (journal._BY_HAND, journal._WAITING):
            one = journal._of("ada", query, classroom.slug)
            assert not reads_all(one[0], one[1:])
            whole = journal._of(None, query, classroom.slug)
            assert "student_id" not in whole[0].partition("WHERE")[2]
        # The control: what is asked finds a student's notebook by an index that we add to nbgrader's tables.
        connection.execute("DROP INDEX coursekit_notebook_submission")
        for query in (journal._BY_HAND, journal._WAITING):
            one = journal._of("ada", query, classroom.slug)
            assert reads_all(one[0], one[1:])
