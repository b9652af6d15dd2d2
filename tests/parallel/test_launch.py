"""Starting ranks, and how every way of ending is told: real processes."""

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from coursekit.errors import InputError
from coursekit.parallel import RankError, RankTimeoutError, launch
from coursekit.parallel._template import current_template


def rank_and_sum(*values, scale=1):
    total = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(total)
    return dist.get_rank(), total.item(), scale * sum(values)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_results_come_by_rank_with_a_working_process_group(world_size):
    total = sum(range(world_size))
    expected = [(rank, total, 60) for rank in range(world_size)]
    assert launch(rank_and_sum, world_size, 1, 2, 3, scale=10) == expected


def test_it_works_after_openmp_has_worked_in_this_process():
    torch.set_num_threads(2)
    (torch.randn(600, 600) @ torch.randn(600, 600)).sum()
    assert launch(lambda: (torch.randn(600, 600) @ torch.randn(600, 600)).shape[0], 2) == [600, 600]


def test_a_second_start_forks_the_process_that_has_torch_imported():
    # That it takes less than 0.3 s is measured by benchmarks/launch.py.
    def about_me():
        return os.getppid(), os.getpid(), "torch" in sys.modules

    first, second = launch(about_me, 2), launch(about_me, 2)
    assert {parent for parent, *_ in first + second} == {first[0][0]}
    assert len({pid for _, pid, _ in first + second}) == 4


def test_the_time_limit_begins_when_the_ranks_do():
    launch(dist.get_rank, 2)
    template = current_template().process.pid
    os.kill(template, signal.SIGSTOP)  # it may as well be importing torch
    threading.Timer(4, os.kill, [template, signal.SIGCONT]).start()
    assert launch(dist.get_rank, 2, timeout_seconds=3) == [0, 1]


def test_closures_and_arguments_of_many_megabytes_are_carried():
    offset = torch.arange(3)
    big = torch.zeros(4_000_000)
    for result in launch(lambda x: (x + offset[2], len(x)), 2, big):
        assert (result[0] == 2).all()
        assert result[1] == 4_000_000


def test_a_function_may_say_dist_and_the_config_of_anything():
    # torch.distributed.config exists, and is no module to cloudpickle.
    model = SimpleNamespace(config=7)
    assert launch(lambda: (dist.get_rank(), model.config), 2) == [(0, 7), (1, 7)]


def test_an_operator_may_say_that_it_is_differentiable_once():
    # torch.autograd.function knows torch._C._functions, which is in no import.
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @once_differentiable
        def backward(ctx, grad):
            return 2 * grad

    def gradient():
        x = torch.ones(2, requires_grad=True)
        Double.apply(x).sum().backward()
        return x.grad.tolist()

    assert launch(gradient, 2) == [[2.0, 2.0]] * 2


def around():
    return (
        os.getcwd(),
        os.environ["COURSEKIT_TEST"],
        sys.argv,
        torch.get_num_threads(),
        os.environ["LOCAL_RANK"],
    )


def test_a_rank_stands_where_the_launching_process_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSEKIT_TEST", "yes")
    num_threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for rank, result in enumerate(launch(around, 2)):
        assert result == (str(tmp_path), "yes", sys.argv, num_threads, str(rank))


def test_ranks_have_random_states_of_their_own_and_torch_its_usual_default():
    import random

    import numpy

    first, second = launch(lambda: (random.random(), numpy.random.rand(), torch.rand(1).item()), 2)
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert first[2] == second[2]


def test_ranks_that_send_nothing_do_not_end_before_the_others_are_connected():
    # A race lost seldom and only on a busy machine, so the barrier against it is looked for as well.
    for _ in range(5):
        assert launch(lambda: os.environ["TORCH_DIST_INIT_BARRIER"], 4) == ["1"] * 4


# Output


def print_much():
    for number in range(200):
        print("x" * 50, end="")
        print("y" * 50, number)


def test_whole_lines_come_with_their_rank_and_are_never_mixed(capsys):
    launch(print_much, 4)
    lines = capsys.readouterr().out.splitlines()
    for rank in range(4):
        mine = [line for line in lines if line.startswith(f"[rank {rank}] ")]
        assert mine == [f"[rank {rank}] " + "x" * 50 + "y" * 50 + f" {number}" for number in range(200)]
    assert len(lines) == 800


def print_oddly():
    if dist.get_rank() == 0:
        print("10 %\r50 %\r100 %")
        sys.stderr.write("a warning\n")
        os.write(1, "from C++ ä\n".encode())
        print("no newline at the end", end="")


def test_progress_bars_errors_and_c_output_are_relayed(capsys):
    launch(print_oddly, 2)
    out = capsys.readouterr()
    assert out.out.splitlines() == [
        f"[rank 0] {text}" for text in ("100 %", "a warning", "from C++ ä", "no newline at the end")
    ]
    assert out.err == ""


def test_without_echo_nothing_is_shown(capsys):
    launch(print_much, 2, echo=False)
    assert capsys.readouterr() == ("", "")


# Failures


def fail_on(ranks):
    rank = dist.get_rank()
    if rank in ranks:
        raise KeyError(f"broken on {rank}")
    dist.barrier()


class First(Exception):
    """Leaves a mark when its message is made, which is after its time was noted."""

    def __str__(self):
        open(self.args[0], "w").close()
        return "first"


def fail_in_order(order, mark):
    """Raise on the first rank, and on the second when the first one has."""
    if dist.get_rank() == order[0]:
        raise First(mark)
    while not os.path.exists(mark):
        time.sleep(0.001)
    raise KeyError("second")


def test_the_rank_that_raised_is_named_with_its_traceback_and_the_others_shortly():
    with pytest.raises(RankError) as caught:
        launch(fail_on, 4, [2])
    error, text = caught.value, str(caught.value)
    assert error.rank == 2
    assert text.startswith(
        "rank 2 of 4 failed first: KeyError: 'broken on 2'\n\nTraceback (most recent call last):"
    )
    assert 'raise KeyError(f"broken on {rank}")' in text
    assert text.count("Traceback") == 1
    assert "coursekit" not in text.split("and then:")[0].replace("tests/parallel", "").replace(
        os.getcwd(), ""
    )
    assert {failure.rank for failure in error.failures[1:]} == {0, 1, 3}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_ranks_that_raise_the_earlier_is_first(order, tmp_path):
    with pytest.raises(RankError) as caught:
        launch(fail_in_order, 2, order, str(tmp_path / "mark"))
    assert [failure.rank for failure in caught.value.failures] == order


def test_a_failure_ends_ranks_that_would_work_on_for_long():
    start = time.perf_counter()
    with pytest.raises(RankError) as caught:
        launch(lambda: time.sleep(100) if dist.get_rank() else 1 / 0, 2)
    assert time.perf_counter() - start < 50
    assert caught.value.failures[1].stopped
    assert "ZeroDivisionError" in str(caught.value)


def end_by(how):
    if dist.get_rank() == 1:
        how()
    dist.barrier()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "killed by SIGTERM"),
        (lambda: os._exit(7), "exit code 7"),
        (lambda: os._exit(0), "exit code 0 before it gave a result"),
        (lambda: sys.exit("enough"), "SystemExit: enough"),
    ],
)
def test_a_rank_that_ends_in_another_way_is_named_with_it(how, text):
    with pytest.raises(RankError, match=text) as caught:
        launch(end_by, 2, how, timeout_seconds=30)
    assert caught.value.rank == 1
    assert not isinstance(caught.value, RankTimeoutError)


def end_while_nobody_looks():
    """End one rank while the template, which is to tell of it, has no processor."""
    if dist.get_rank() == 1:
        later = f"import os, time; time.sleep(1); os.kill({os.getppid()}, {signal.SIGCONT})"
        subprocess.Popen([sys.executable, "-c", later], start_new_session=True)
        os.kill(os.getppid(), signal.SIGSTOP)
        os._exit(7)
    dist.barrier()


def test_a_rank_that_was_lost_is_named_first_however_late_its_end_is_told():
    with pytest.raises(RankError, match="rank 1 of 2 failed first: ended with exit code 7"):
        launch(end_while_nobody_looks, 2)


def crash():
    import ctypes

    if dist.get_rank() == 1:
        ctypes.string_at(0)
    dist.barrier()


def test_a_crash_in_c_says_where_python_stood():
    with pytest.raises(RankError, match="killed by SIGSEGV") as caught:
        launch(crash, 2)
    assert "ctypes.string_at(0)" in str(caught.value)


class CannotTravel(Exception):
    def __init__(self, first, second):
        super().__init__("it cannot be pickled")
        self.lock = __import__("threading").Lock()


def raise_what_cannot_travel():
    raise CannotTravel(1, 2)


def test_an_exception_that_cannot_be_pickled_is_told_all_the_same():
    with pytest.raises(RankError, match="CannotTravel: it cannot be pickled"):
        launch(raise_what_cannot_travel, 2)


def test_a_result_that_cannot_be_pickled_is_told_what_to_return():
    with pytest.raises(RankError, match=r"generator that cannot be sent.*return plain data"):
        launch(lambda: (x for x in ()), 2)


def test_ranks_that_do_not_make_the_same_calls_are_told_so():
    with pytest.raises(RankError, match="do all ranks make the same calls") as caught:
        launch(lambda: dist.get_rank() and dist.barrier(), 2, timeout_seconds=30)
    assert caught.value.rank == 1


def hang(how):
    if dist.get_rank() == 0:
        dist.recv(torch.zeros(1), 1)
    elif dist.get_rank() == 1:
        how()


def test_a_timeout_says_where_each_rank_stood():
    with pytest.raises(RankTimeoutError) as caught:
        launch(hang, 3, lambda: time.sleep(100), timeout_seconds=3)
    error, text = caught.value, str(caught.value)
    assert isinstance(error, TimeoutError)
    assert error.rank == 0
    assert text.startswith("2 of 3 ranks had not ended after 3 s\nrank 0 stood here:\n")
    assert "dist.recv(torch.zeros(1), 1)\n    waiting in recv (distributed_c10d.py" in text
    assert "time.sleep(100)" in text
    assert text.endswith("rank 2 had ended")
    assert "site-packages" not in text
    assert "_rank.py" not in text


def test_a_timeout_reaches_a_rank_that_does_not_run_python():
    with pytest.raises(RankTimeoutError, match="rank 1 stood here"):
        launch(hang, 2, lambda: os.kill(os.getpid(), signal.SIGSTOP), timeout_seconds=0.5)


def test_a_timeout_in_the_first_moment_of_a_rank_is_a_timeout_as_well():
    for _ in range(6):
        with pytest.raises(RankTimeoutError, match="rank 1 stood here"):
            launch(hang, 2, lambda: time.sleep(100), timeout_seconds=1e-6)


def test_errors_survive_pickling():
    with pytest.raises(RankError) as raised:
        launch(fail_on, 2, [1])
    with pytest.raises(RankTimeoutError) as timed_out:
        launch(hang, 2, lambda: time.sleep(100), timeout_seconds=0.2)
    for error in (raised.value, timed_out.value):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.rank) == (type(error), str(error), error.rank)


def launch_again():
    return launch(dist.get_rank, 2)


def test_a_launch_in_a_launch_is_refused():
    with pytest.raises(RankError, match="InputError: launch was called by a rank of another launch"):
        launch(launch_again, 2)


@pytest.mark.parametrize("world_size", [0, -1, 65, 2.0, True, "2", None])
def test_a_wrong_world_size_is_an_error(world_size):
    with pytest.raises(InputError, match="world_size"):
        launch(dist.get_rank, world_size)


@pytest.mark.parametrize("timeout_seconds", [0, -1, float("nan")])
def test_no_time_to_run_in_is_an_error(timeout_seconds):
    with pytest.raises(InputError, match="timeout_seconds > 0, or None, got"):
        launch(dist.get_rank, 2, timeout_seconds=timeout_seconds)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="two GPUs")
def test_nccl_without_a_gpu_for_each_rank_is_told_what_would_do():
    with pytest.raises(RankError, match=r'nccl needs a GPU a rank: .*; use backend="gloo", or fewer ranks'):
        launch(dist.get_rank, 2, backend="nccl")


def test_something_that_is_no_function_is_an_error():
    with pytest.raises(InputError, match="nothing to run"):
        launch("work", 2)


# What is left


def test_many_launches_leave_no_descriptor_open():
    launch(dist.get_rank, 2)
    gc.collect()  # what earlier tests left in cycles
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        launch(dist.get_rank, 2)
        with pytest.raises(RankError):
            launch(fail_on, 2, [0])
    assert len(os.listdir("/dev/fd")) == before


def leave_helpers():
    """A worker that outlives its rank, holding the rank's output open."""
    return subprocess.Popen(["sleep", "1000"]).pid


def test_processes_that_a_rank_started_end_with_it(processes):
    start = time.perf_counter()
    pids = launch(leave_helpers, 2)
    assert time.perf_counter() - start < 50
    assert processes.all_end(pids)


def test_a_killed_template_is_an_error_and_the_next_launch_starts_another():
    launch(dist.get_rank, 2)
    pid = current_template().process.pid
    with pytest.raises(RankError):
        launch(lambda: (os.kill(pid, signal.SIGKILL), time.sleep(100)), 2)
    assert launch(dist.get_rank, 2) == [0, 1]


def test_launches_from_several_threads_do_not_mix():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda number: launch(rank_and_sum, 2, number), range(6)))
    assert results == [[(0, 1.0, number), (1, 1.0, number)] for number in range(6)]


class Met:
    """An argument whose copying waits a second for another thread to come as far, and lets that one pass."""

    def __init__(self, met):
        self.met = met

    def __reduce__(self):
        with contextlib.suppress(threading.BrokenBarrierError):
            if self.met.wait(1.0) == 0:
                time.sleep(0.2)
        return int, ()


def test_a_module_that_two_threads_copy_is_copied_for_both():
    from concurrent.futures import ThreadPoolExecutor

    met = threading.Barrier(2)  # where nothing keeps the two apart, one takes the other's module off the list
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: launch(rank_and_sum, 1, Met(met)), range(2)))
    assert results == [[(0, 0.0, 0)]] * 2


def test_a_module_that_its_author_has_copied_stays_on_the_list():
    from . import sharded_gpt  # puts itself there

    assert len(launch(sharded_gpt.make_batches, 1)[0]) == sharded_gpt.STEPS
    assert sharded_gpt.__name__ in cloudpickle.list_registry_pickle_by_value()
