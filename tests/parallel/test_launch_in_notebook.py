"""`launch` from a real ipykernel: functions of cells, an interrupt, a killed kernel."""

import os
import signal
import time

import pytest
from jupyter_client.manager import start_new_kernel

SETUP = """
import os, time
import torch, torch.distributed as dist
from coursekit.parallel import launch
torch.set_num_threads(2)
_ = (torch.randn(600, 600) @ torch.randn(600, 600)).sum()  # OpenMP has worked in the kernel
"""
HANG = """
def work(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    if dist.get_rank() == 0:
        dist.barrier()
    time.sleep(1000)
launch(work, 2, {folder!r})
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=240)
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def run_cell(client, code, timeout=120):
    """Run a cell; return its status, its standard output, its standard error and the error's text."""
    streams = {"stdout": "", "stderr": ""}

    def hook(message):
        if message["msg_type"] == "stream":
            streams[message["content"]["name"]] += message["content"]["text"]

    reply = client.execute_interactive(code, timeout=timeout, output_hook=hook)["content"]
    return reply["status"], streams["stdout"], streams["stderr"], reply.get("evalue", "")


def test_a_function_of_a_cell_runs_and_its_traceback_quotes_the_cell(kernel):
    _, client = kernel
    assert run_cell(client, SETUP)[0] == "ok"
    code = """
offset = 10
class Result:
    def __init__(self, value): self.value = value
def work(fail):
    total = torch.ones(1)
    dist.all_reduce(total)
    print("on", dist.get_rank())
    if fail and dist.get_rank() == 1:
        raise ValueError("on purpose")  # this line
    return Result(total.item() + offset)
results = launch(work, 2, False)
print([result.value for result in results], all(isinstance(result, Result) for result in results))
"""
    status, out, err, _ = run_cell(client, code)
    assert (status, err) == ("ok", "")
    assert sorted(out.splitlines()[:2]) == ["[rank 0] on 0", "[rank 1] on 1"]
    assert out.splitlines()[2] == "[12.0, 12.0] True"
    status, _, _, error = run_cell(client, "launch(work, 2, True)")
    assert status == "error"
    assert error.startswith("rank 1 of 2 failed first: ValueError: on purpose")
    assert 'raise ValueError("on purpose")  # this line' in error


def test_the_interrupt_button_stops_the_ranks_and_the_kernel_lives(kernel, processes):
    manager, client = kernel
    run_cell(client, SETUP)
    # Without stop_on_error=False, ipykernel aborts a request that comes too soon after a failed one.
    message = client.execute(HANG.format(folder=str(processes.pid_folder)), stop_on_error=False)
    pids = processes.pids(2)
    start = time.monotonic()
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != message:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert time.monotonic() - start < 50
    assert processes.all_end(pids)
    assert run_cell(client, "print(launch(dist.get_rank, 2))") == ("ok", "[0, 1]\n", "", "")


@pytest.mark.parametrize("how", ["kill", "shut down", "kill the kernel alone"])
def test_a_kernel_that_ends_leaves_no_rank(kernel, processes, how):
    manager, client = kernel
    run_cell(client, SETUP)
    client.execute(HANG.format(folder=str(processes.pid_folder)))
    pids = processes.pids(2)
    if how == "kill the kernel alone":
        os.kill(manager.provisioner.process.pid, signal.SIGKILL)
    else:
        manager.shutdown_kernel(now=how == "kill")
    assert processes.all_end(pids)
