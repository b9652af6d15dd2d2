"""A run that is killed in the middle of a class loses no grade and gives none twice."""

import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from coursekit.grading.journal import open_to_read

from .short_lives import Remembering

ROOT = Path(__file__).parents[2]
# Holds its breath after three grades, for the blow to meet it in the middle of the class on any machine.
MAIN = "from coursekit.cli import main; main()"  # for other tests
HELD_AFTER_THREE = """
import signal, time
from coursekit.cli import main
from coursekit.grading.session import Session
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind itself ignores it
grade = Session.grade
def held(*what):
    for number, result in enumerate(grade(*what), 1):
        if number == 3:
            time.sleep(600)
        yield result
Session.grade = held
main()
"""
SLOW_ANSWER = "import time\ntime.sleep(0.5)\ndef add(left, right):\n    return left + right"


def journal(course):
    """student -> time of grading, from the journal."""
    if not course.gradebook.is_file():
        return {}
    with closing(open_to_read(course.gradebook)) as connection:
        return dict(connection.execute("SELECT student, rowid || graded_at FROM coursekit_journal"))


def start(course):
    command = [sys.executable, "-c", HELD_AFTER_THREE, "grade", "toy_adding", "--course", str(course.root)]
    return subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def is_alive(process):
    """Whether a process (or the one with this id) runs: it may end between two looks at it."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


KILLED_BEFORE_THE_PAGE = """
import os, signal, sys
from coursekit.cli import main
from coursekit.grading import feedback
feedback.write_feedback = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


KILLED_IN_A_TRANSACTION = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")  # the half that is done goes to the disk
connection.execute("DELETE FROM coursekit_journal")
connection.execute("CREATE TABLE half (line)")
connection.executemany("INSERT INTO half VALUES (?)", [["much" * 500]] * 500)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Counting(ThreadPoolExecutor):
    """Counts what it is asked to run."""

    asked = 0

    def submit(self, *what):
        self.asked += 1
        return super().submit(*what)


def test_a_run_killed_between_a_grade_and_its_page_owes_the_page_alone(classroom):
    course, page = classroom.course, classroom.course.feedback("ada", "toy_adding")
    classroom.hand_in("ada", add="def add(left, right):\n    return 'the first answer'")
    classroom.grade()
    classroom.hand_in("ada", add="def add(left, right):\n    return 'the second answer'")
    command = [sys.executable, "-c", KILLED_BEFORE_THE_PAGE, "grade", "toy_adding", "--course", course.root]
    killed = subprocess.run([*command, "--allow-unsandboxed"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not page.exists(), "the page of another submission stands beside the grade"
    graded, seen = journal(course), []
    with Counting(1) as executor:
        classroom.grade(executor=executor, on_result=lambda result, kept: seen.append(kept))
    assert (executor.asked, seen, journal(course)) == (0, [True], graded)
    assert "the second answer" in page.read_text()


def test_a_run_killed_in_a_transaction_leaves_a_gradebook_that_the_next_one_reads(classroom):
    course = classroom.course
    classroom.hand_in("ada")
    classroom.grade()
    graded = journal(course)
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_A_TRANSACTION, course.gradebook])
    assert killed.returncode == -signal.SIGKILL
    half = course.gradebook.with_name(f"{course.gradebook.name}-journal")
    assert half.stat().st_size, "nothing was left for the next reader to undo"
    with Counting(1) as executor:
        classroom.grade(executor=executor)
    assert (executor.asked, journal(course)) == (0, graded)
    assert not half.exists()


def test_a_page_that_cannot_be_written_later_has_its_submission_graded_again(classroom):
    course, students = classroom.course, ("ada", "bob", "cyd")
    for student in students:
        classroom.hand_in(student)
    classroom.grade()
    for student in students:
        course.feedback(student, "toy_adding").unlink()
    course.autograded("bob", "toy_adding").write_text("not a notebook any more")
    with Counting(1) as executor:
        results = classroom.grade(executor=executor)
    assert executor.asked == 1
    assert {result.score for result in results.values()} == {6}
    assert all(course.feedback(student, "toy_adding").is_file() for student in students)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_resumed_where_it_stopped(classroom, blow):
    course, students = classroom.course, [f"s{number}" for number in range(8)]
    for student in students:
        classroom.hand_in(student, add=SLOW_ANSWER)
    run = start(course)
    wait_for(lambda: len(journal(course)) == 3)
    children = psutil.Process(run.pid).children(recursive=True)
    os.kill(run.pid, blow)
    _, said = run.communicate(timeout=30)
    before = journal(course)
    assert len(before) == 3
    if blow == signal.SIGINT:
        assert run.returncode == 130, said.decode()
        assert re.search(r"stopped; 3 of 8 graded; run the same command to go on\n$", said.decode())
    wait_for(lambda: not any(map(is_alive, children)))
    seen = []
    results = classroom.grade(on_result=lambda result, kept: seen.append((result.student, kept)))
    assert {result.score for result in results.values()} == {6}
    assert {student for student, kept in seen if kept} == set(before)
    assert all(course.feedback(student, "toy_adding").is_file() for student in students)
    with closing(sqlite3.connect(course.gradebook)) as connection:
        counts = connection.execute("SELECT count(*), count(DISTINCT student_id) FROM submitted_assignment")
        assert counts.fetchone() == (8, 8)


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_loses_no_grade_and_gives_none_twice(classroom, tmp_path):
    course, students = classroom.course, [f"s{number:02}" for number in range(80)]
    for student in students:
        classroom.hand_in(student)
    classroom.grade("s00", executor=Remembering(tmp_path))
    command = [sys.executable, "-m", "tests.grading.short_lives", str(course.root), "toy_adding"]
    lives = subprocess.run([*command, str(tmp_path), "20"], cwd=ROOT, capture_output=True, check=True)
    seen = [json.loads(line) for line in lives.stdout.splitlines()]
    assert all(life["killed"] for life in seen), "the class is too small: it was graded between the kills"
    before = journal(course).keys() & {"s00"}
    for life in seen:
        now = life["journal"]
        assert before <= now.keys(), "a grade was lost"
        before = now.keys()
    for then, now in itertools.pairwise(life["journal"] for life in seen):
        assert all(then[student] == now[student] for student in then), "a grade was given twice"
    assert len(seen[-1]["journal"]) > len(seen[0]["journal"]), "no life came as far as a grade"
    results = classroom.grade(executor=Remembering(tmp_path))
    assert {result.score for result in results.values()} == {6}
    assert all(course.feedback(student, "toy_adding").is_file() for student in students)
    with closing(sqlite3.connect(course.gradebook)) as connection:
        counts = connection.execute("SELECT count(*), count(DISTINCT student_id) FROM submitted_assignment")
        assert counts.fetchone() == (80, 80)
