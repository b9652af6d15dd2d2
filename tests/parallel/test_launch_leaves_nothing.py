"""However a launch ends, no process is left; nothing is said on standard error; a script runs once."""

import os
import signal

import pytest

from .conftest import is_waiting, wait_until

HANG = """
    import os, signal, subprocess, sys, time
    import torch, torch.distributed as dist
    from coursekit.parallel import launch
    # Tests run under nohup, or behind a shell, hand down that these are ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def work(folder):
        child = subprocess.Popen(["sleep", "1000"])  # a rank's own helper must end as well
        for pid in (os.getpid(), child.pid, os.getppid()):
            open(os.path.join(folder, str(pid)), "w").close()
        if dist.get_rank() == 0:
            dist.barrier()
        time.sleep(1000)

    launch(work, 2, sys.argv[1])
"""


def test_a_script_without_a_guard_runs_once_and_writes_no_warning(processes):
    out = processes.run(
        """
        print("top of the script")
        import torch, torch.distributed as dist
        from dataclasses import dataclass
        from coursekit.parallel import launch

        @dataclass
        class Result:
            rank: int

        def work(offset):
            model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
            model(torch.ones(1, 2)).sum().backward()
            dist.new_group([0, 1])
            return Result(dist.get_rank() + offset)

        print(launch(work, 2, 5) == [Result(5), Result(6)])
        """,
    )
    assert out == "top of the script\nTrue\n"


def test_output_comes_while_ranks_still_work(processes, tmp_path):
    script = """
        import os, sys, time, torch.distributed as dist
        from coursekit.parallel import launch

        def work(heard):
            if dist.get_rank():
                print("early")
            while not os.path.exists(heard):
                time.sleep(0.01)

        launch(work, 2, sys.argv[1], timeout_seconds=100)
    """
    with processes.start(script, tmp_path / "heard", interpreter=["-u"]) as process:
        assert process.stdout.readline() == "[rank 1] early\n"
        (tmp_path / "heard").touch()  # the ranks work until this is there
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_dead_parent_leaves_no_process(processes, number):
    with processes.start(HANG, processes.pid_folder) as process:
        pids = processes.pids(5)
        process.send_signal(number)
        assert processes.all_end(pids)


def test_an_interrupt_leaves_no_process_and_says_where_the_ranks_stood(processes):
    with processes.start(HANG, processes.pid_folder) as process:
        pids = processes.pids(5)
        # Rank 0 in its barrier, not on its way there.
        assert wait_until(lambda: all(map(is_waiting, pids)), 60)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        out, err = process.communicate(timeout=60)
    assert "rank 0 was interrupted here:" in out
    assert "dist.barrier()" in out
    assert "time.sleep(1000)" in out
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert processes.all_end(pids)


def test_a_normal_end_leaves_no_process(processes):
    script = HANG.replace(
        "if dist.get_rank() == 0:\n            dist.barrier()\n        time.sleep(1000)", "pass"
    )
    processes.run(script, processes.pid_folder)
    pids = [int(name) for name in os.listdir(processes.pid_folder)]
    assert len(pids) == 5
    assert processes.all_end(pids)


def test_a_forked_child_of_the_launching_process_can_launch_too(processes):
    out = processes.run(
        """
        import os, torch.distributed as dist
        from coursekit.parallel import launch
        assert launch(dist.get_rank, 2) == [0, 1]
        pid = os.fork()
        print(launch(dist.get_rank, 2), flush=True)
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            print(launch(dist.get_rank, 2), flush=True)
        """,
    )
    assert out == "[0, 1]\n" * 3


def test_a_template_made_by_fork_needs_no_new_program(processes):
    out = processes.run(
        """
        import subprocess, torch, torch.distributed as dist
        from coursekit.parallel import launch, prepare_launch

        prepare_launch(fork=True)
        def no_program(*args, **kwargs): raise PermissionError("no new program here")
        subprocess.Popen = no_program
        (torch.randn(600, 600) @ torch.randn(600, 600)).sum()  # OpenMP works here, after the fork
        def work():
            (torch.randn(600, 600) @ torch.randn(600, 600)).sum()
            total = torch.ones(1)
            dist.all_reduce(total)
            return total.item()
        print(launch(work, 2), launch(work, 4))
        """,
    )
    assert out == "[2.0, 2.0] [4.0, 4.0, 4.0, 4.0]\n"


TORCHRUN = """
    import os, torch, torch.distributed as dist
    from coursekit.parallel import launch

    def work(scale):
        total = torch.tensor(float(dist.get_rank()))
        dist.all_reduce(total)
        return dist.get_rank(), total.item() * scale

    results = launch(work, 2, scale=10)
    if os.environ.get("RANK", "0") == "0":
        print(results)
"""


def test_the_same_script_runs_alone_and_under_torchrun(processes):
    alone = processes.run(TORCHRUN)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with processes.start(TORCHRUN, interpreter=torchrun) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == alone == "[(0, 10.0), (1, 10.0)]\n"


def test_under_torchrun_its_number_of_ranks_holds_and_the_other_is_warned_of(processes):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    with processes.start(TORCHRUN, interpreter=torchrun) as process:
        out, err = process.communicate(timeout=120)
    assert out == "[(0, 30.0), (1, 30.0), (2, 30.0)]\n"
    assert err.count("torchrun started 3 ranks; world_size=2 is ignored") == 1
