"""The run stage: real kernels, and everything that a notebook can do to one."""

import json
import pickle
import threading
import time
from ast import literal_eval
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import pytest

from coursekit.grading.run import Job, KernelStartError, Limits, run_notebook

from .test_resume import is_alive, wait_for

QUICK = Limits(cell_seconds=2, notebook_seconds=30, drain_seconds=2)


@pytest.fixture
def run(code_notebook):
    def run_cells(*sources, limits=QUICK, **job):
        result = run_notebook(Job(code_notebook(*sources), limits=limits, **job))
        return result.states, json.loads(result.notebook)["cells"]

    return run_cells


def test_a_cell_that_raises_is_an_error_and_the_rest_still_runs(run):
    states, cells = run("x = 1", "1 / 0", "x + 1.5")
    assert states == ("ok", "error", "ok")
    assert cells[1]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert cells[2]["outputs"][0]["data"]["text/plain"] == "2.5"


@pytest.mark.parametrize("ending", ["import os; os._exit(1)", "import os; os.kill(os.getpid(), 9)"])
def test_a_kernel_that_dies_ends_the_run_but_not_the_grader(run, ending):
    states, cells = run("1", ending, "2")
    assert states == ("ok", "died", "not_run")
    assert cells[1]["outputs"][-1]["ename"] == "DeadKernelError"
    assert cells[2]["execution_count"] is None


def test_sys_exit_is_an_error_like_any_other(run):
    states, cells = run("import sys; sys.exit(3)", "4")
    assert states == ("error", "ok")
    assert cells[0]["outputs"][0]["ename"] == "SystemExit"


@pytest.mark.parametrize(
    "loop",
    ["while True: pass", "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: 1"],
)
def test_an_endless_loop_is_stopped_and_the_next_cell_runs(run, loop):
    states, cells = run(loop, "'after'")
    assert states == ("timeout", "ok")
    assert cells[0]["outputs"][-1]["ename"] == "CellTimeoutError"


def test_a_loop_that_cannot_be_interrupted_ends_within_its_budget(run):
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    start = time.monotonic()
    states, _ = run("1", stubborn, "2")
    assert states == ("ok", "died", "not_run")
    assert time.monotonic() - start < 50


def test_the_whole_notebook_has_a_budget(run):
    limits = Limits(cell_seconds=6, notebook_seconds=6)
    states, _ = run("1", *["import time; time.sleep(3)"] * 4, limits=limits)
    assert "not_run" in states
    assert states[0] == "ok"


def test_a_flood_of_output_is_cut_and_a_short_last_value_survives(run):
    limits = Limits(cell_seconds=20, notebook_seconds=60, output_bytes=10_000)
    states, cells = run("for _ in range(20_000): print('x' * 100)\n1.5", limits=limits)
    assert states == ("ok",)
    assert len(json.dumps(cells)) < 20_000
    assert "cut off" in cells[0]["outputs"][-2]["text"]
    assert cells[0]["outputs"][-1]["data"]["text/plain"] == "1.5"


def test_backspaces_in_output_are_not_played_back(run):
    # nbclient's own joining needs quadratic time for this text: minutes.
    start = time.monotonic()
    states, cells = run("print('a' * 200_000 + '\\b' * 200_000)", limits=Limits(cell_seconds=10))
    assert states == ("ok",)
    assert time.monotonic() - start < 60
    assert cells[0]["outputs"][0]["text"].count("\b") == 200_000


def test_an_error_with_tracebacks_switched_off_is_still_an_error(run):
    states, cells = run("get_ipython().showtraceback = lambda *a, **k: None", "1 / 0")
    assert states == ("ok", "error")
    assert cells[1]["outputs"][0]["ename"] == "ZeroDivisionError"


def test_each_run_has_a_fresh_folder_with_the_given_files(run):
    files = {"data/numbers.txt": b"3"}
    states, cells = run("print(open('data/numbers.txt').read(), __import__('os').listdir('.'))", files=files)
    assert states == ("ok",)
    assert cells[0]["outputs"][0]["text"] == "3 ['data']\n"


def test_processes_that_a_cell_leaves_behind_are_killed(run):
    command = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    start = f"import subprocess, sys\np = subprocess.Popen({command})\np.pid"
    _, cells = run(start)
    pid = int(cells[0]["outputs"][0]["data"]["text/plain"])
    wait_for(lambda: not is_alive(pid))


def test_a_kernel_that_does_not_exist_is_the_graders_fault(code_notebook):
    notebook = json.loads(code_notebook("1"))
    notebook["metadata"]["kernelspec"]["name"] = "no_such_kernel"
    with pytest.raises(KernelStartError, match="no kernel started"):
        run_notebook(Job(json.dumps(notebook).encode()))


def test_a_job_and_its_run_travel_to_another_process(code_notebook):
    job = Job(code_notebook("6 * 7"), limits=QUICK)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(run_notebook, job).result()
    assert json.loads(result.notebook)["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"
    for sent in (job, result):
        assert pickle.loads(pickle.dumps(sent)) == sent


class Turn:
    """A turn that notes how long it was waited for."""

    def __init__(self, semaphore):
        self.semaphore = semaphore

    def __enter__(self):
        asked = time.monotonic()
        self.semaphore.acquire()
        self.waited = time.monotonic() - asked

    def __exit__(self, *_):
        self.semaphore.release()


def test_cells_run_only_when_it_is_their_turn(code_notebook):
    cell = "import time; begin = time.monotonic(); time.sleep(1); (begin, time.monotonic())"
    job = Job(code_notebook(cell))
    turns = list(map(Turn, [threading.BoundedSemaphore(1)] * 3))

    def timed(turn):
        start = time.monotonic()
        return run_notebook(job, turn), time.monotonic() - start

    with ThreadPoolExecutor(3) as pool:
        runs, seconds = zip(*pool.map(timed, turns), strict=True)
    cells = [json.loads(run.notebook)["cells"][0] for run in runs]
    spans = sorted(literal_eval(cell["outputs"][0]["data"]["text/plain"]) for cell in cells)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    # What a run took is its own: none has waited for the others' cells in it.
    own = [took - turn.waited for took, turn in zip(seconds, turns, strict=True)]
    assert all(run.seconds <= most for run, most in zip(runs, own, strict=True))
