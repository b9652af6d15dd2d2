"""Notebooks run by the workers of a Dask scheduler: a real one, and two processes, one of which is killed."""

import json
import os
import pickle
import signal
import subprocess
import sys

import psutil
import pytest

from coursekit.errors import InputError
from coursekit.grading.cluster import ClusterExecutor
from coursekit.grading.pipeline import Options, grade_assignment

from .test_resume import MAIN, SLOW_ANSWER, is_alive, journal, wait_for

pytestmark = pytest.mark.slow


def dask(program, *arguments, folder):
    """Start a Dask program, in a folder that is not the course's."""
    command = [sys.executable, "-m", "dask", program, "--no-dashboard", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler, and its two workers' processes."""
    folder, file = tmp_path / "elsewhere", tmp_path / "scheduler.json"
    folder.mkdir()
    started = [
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), folder=folder)
    ]
    wait_for(lambda: file.exists() and file.read_text().endswith("}"))
    address = json.loads(file.read_text())["address"]
    options = ["--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
    started += [dask("worker", *options, folder=folder) for _ in range(2)]
    from distributed import Client  # not while tests are collected

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # whoever comes late gets nothing to run
    yield address, started[1:]
    for process in started:
        process.kill()
        process.wait()


def below(process):
    """The processes below one, whatever they are."""
    return psutil.Process(process.pid).children(recursive=True)


def test_a_worker_that_is_killed_in_the_middle_costs_no_grade(classroom, cluster):
    course, (address, workers) = classroom.course, cluster
    students = [f"s{number}" for number in range(8)]
    for student in students:
        classroom.hand_in(student, add=SLOW_ANSWER)
    command = [sys.executable, "-c", MAIN, "grade", "toy_adding", "--course", str(course.root)]
    run = subprocess.Popen([*command, "--scheduler", address], stderr=subprocess.PIPE)
    wait_for(lambda: len(journal(course)) >= 1 and all(below(worker) for worker in workers))
    assert len(journal(course)) < len(students)
    orphans = below(workers[0])
    os.kill(workers[0].pid, signal.SIGKILL)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 0, said.decode()
    assert set(journal(course)) == set(students)
    kept = []
    results = classroom.grade(on_result=lambda _, stands: kept.append(stands))
    assert kept == [True] * len(students)
    assert {(result.status, result.score) for result in results.values()} == {("graded", 6)}
    wait_for(lambda: not any(map(is_alive, orphans)))


def test_what_a_worker_is_sent_names_no_file_of_the_course(classroom, cluster):
    course, (address, _) = classroom.course, cluster
    classroom.hand_in("ada")
    sent = []

    class Watching(ClusterExecutor):
        def submit(self, function, job):
            sent.append(pickle.dumps((function, job)))
            return super().submit(function, job)

    with Watching(address, allow_unsandboxed=True) as executor:
        [result] = grade_assignment(course, "toy_adding", options=Options(workers=2), executor=executor)
    assert result.score == 6
    assert len(sent) == 1
    assert str(course.root).encode() not in sent[0]


def test_a_scheduler_that_does_not_answer_is_named():
    with pytest.raises(InputError, match=r"no Dask scheduler answers: got tcp://127.0.0.1:9;"):
        ClusterExecutor("tcp://127.0.0.1:9", allow_unsandboxed=False)
