"""Forked kernels behave as stock ones do, in a box and without one; exercises' work can be done in a box."""

import asyncio
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import psutil
import pytest

from coursekit.grading import forked
from coursekit.grading.provisioner import _boxed
from coursekit.grading.run import Job, KernelStartError, Limits, run_notebook
from coursekit.grading.sandbox.policy import Policy, modules_for
from coursekit.grading.sandbox.probe import probe

QUICK = Limits(cell_seconds=2, notebook_seconds=30, drain_seconds=2)
LONG = Limits(cell_seconds=120, notebook_seconds=240)
LIGHT = {"forked": Policy(preload=()), "boxed": Policy(probe().policy().layers, preload=())}


@pytest.fixture(params=LIGHT.values(), ids=LIGHT)
def run(request, code_notebook):
    def run_cells(*sources, limits=QUICK, policy=request.param, **job):
        result = run_notebook(Job(code_notebook(*sources), limits=limits, sandbox=policy, **job))
        return result.states, json.loads(result.notebook)["cells"]

    return run_cells


def value(cell):
    return cell["outputs"][-1]["data"]["text/plain"]


def test_a_cell_that_raises_is_an_error_and_the_rest_still_runs(run):
    states, cells = run("x = 1", "1 / 0", "x + 1.5")
    assert states == ("ok", "error", "ok")
    assert cells[1]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert value(cells[2]) == "2.5"


@pytest.mark.parametrize("ending", ["import os; os._exit(1)", "import os; os.kill(os.getpid(), 9)"])
def test_a_kernel_that_dies_ends_the_run_but_not_the_grader(run, ending):
    states, cells = run("1", ending, "2")
    assert states == ("ok", "died", "not_run")
    assert cells[1]["outputs"][-1]["ename"] == "DeadKernelError"


def test_an_endless_loop_is_stopped_and_the_next_cell_runs(run):
    states, cells = run("while True: pass", "'after'")
    assert states == ("timeout", "ok")
    assert cells[0]["outputs"][-1]["ename"] == "CellTimeoutError"


def test_a_loop_that_cannot_be_interrupted_ends_within_its_budget(run):
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    states, _ = run("1", stubborn, "2")
    assert states == ("ok", "died", "not_run")


def test_a_flood_of_output_is_cut_and_a_short_last_value_survives(run):
    limits = Limits(cell_seconds=20, notebook_seconds=60, output_bytes=10_000)
    states, cells = run("for _ in range(20_000): print('x' * 100)\n1.5", limits=limits)
    assert states == ("ok",)
    assert len(json.dumps(cells)) < 20_000
    assert value(cells[0]) == "1.5"


def test_each_run_has_a_fresh_folder_with_the_given_files(run):
    files = {"data/numbers.txt": b"3"}
    code = (
        "import os; print(open('data/numbers.txt').read(), sorted({*os.listdir('.')} - {'profile_default'}))"
    )
    states, cells = run(code, files=files)  # where there is no other place, IPython keeps its profile here
    assert states == ("ok",)
    assert cells[0]["outputs"][0]["text"] == "3 ['data']\n"


def test_two_kernels_of_one_template_draw_different_numbers(run):
    draw = "import random, numpy, secrets; (random.random(), numpy.random.rand())"
    (_, first), (_, second) = run(draw), run(draw)
    for left, right in zip(eval(value(first[0]), {"np": None}), eval(value(second[0])), strict=True):
        assert left != right


def test_many_runs_at_once_do_not_meet(run):
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda i: run(f"mine = {i}", "mine", limits=LONG), range(4))
    assert [value(cells[1]) for _, cells in runs] == ["0", "1", "2", "3"]


def test_a_template_that_was_killed_is_replaced(run):
    assert run("1")[0] == ("ok",)
    for template in list(forked._templates.values()):
        template.process.kill()
        template.process.wait()
    assert run("1")[0] == ("ok",)


def test_the_death_of_a_kernel_s_keeper_is_the_kernel_s_death(code_notebook):
    suicide = "import os, time; print(os.getpid(), flush=True); os.kill(os.getppid(), 9); time.sleep(60)"
    run = run_notebook(Job(code_notebook(suicide), limits=LONG, sandbox=LIGHT["forked"]))
    (output, *_) = json.loads(run.notebook)["cells"][0]["outputs"]
    assert run.states == ("died",)
    assert run.seconds < 50
    if output["output_type"] == "stream":  # printed in time
        assert not psutil.pid_exists(int(output["text"]))


def test_nothing_of_a_run_is_left(run):
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    run("1", limits=LONG)
    templates = {template.process.pid for template in forked._templates.values()}
    left = {p.pid for p in psutil.Process().children(recursive=True)} - before - templates
    limit = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in left) and time.monotonic() < limit:
        time.sleep(0.05)
    assert [pid for pid in left if psutil.pid_exists(pid)] == []


def test_a_kernel_that_does_not_exist_is_the_grader_s_fault(code_notebook):
    notebook = json.loads(code_notebook("1"))
    notebook["metadata"]["kernelspec"]["name"] = "no_such_kernel"
    with pytest.raises(KernelStartError, match="no kernel started"):
        run_notebook(Job(json.dumps(notebook).encode(), sandbox=LIGHT["forked"]))


def test_a_module_of_the_template_that_does_not_exist_is_the_grader_s_fault(code_notebook):
    with pytest.raises(KernelStartError, match="No module named 'no_such_module'"):
        run_notebook(Job(code_notebook("1"), sandbox=Policy(preload=("no_such_module",))))


def test_a_job_with_a_policy_travels_to_another_process(code_notebook):
    job = Job(code_notebook("6 * 7"), limits=LONG, sandbox=LIGHT["boxed"])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(run_notebook, job).result()
    assert value(json.loads(result.notebook)["cells"][0]) == "42"


def test_a_kernelspec_may_ask_for_the_provisioner():
    """As nbgrader's own programs do, through jupyter_client's entry points."""
    from importlib.metadata import entry_points

    found = entry_points(group="jupyter_client.kernel_provisioners", name="coursekit-sandbox")
    assert {point.value for point in found} == {"coursekit.grading.provisioner:SandboxProvisioner"}


def test_a_kernel_without_a_manager_s_folder_makes_and_removes_its_own(tmp_path):
    from jupyter_client.manager import AsyncKernelManager

    from coursekit.grading.provisioner import SandboxProvisioner

    async def start_and_stop():
        manager = AsyncKernelManager()
        provisioner = SandboxProvisioner(
            kernel_spec=manager.kernel_spec, parent=manager, policy=LIGHT["boxed"].to_json()
        )
        manager.provisioner = provisioner
        await manager.start_kernel(cwd=str(tmp_path))
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        return provisioner.folder

    folder = asyncio.run(start_and_stop())
    assert folder
    assert not os.path.exists(folder)


TRAIN = """
import torch
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(8, 4)).sum().backward(); optimizer.step()
float(model.weight.grad.sum())
"""
LAUNCH = """
from coursekit.parallel import launch
def total():
    import torch, torch.distributed as dist
    number = torch.ones(1)
    dist.all_reduce(number)
    return float(number)
launch(total, {world_size}, timeout_seconds=100)
"""
LOADER = """
from torch.utils.data import DataLoader, TensorDataset
float(sum(batch[0].sum() for batch in DataLoader(TensorDataset(torch.ones(64)), batch_size=8, num_workers=2)))
"""
# A rank ends without torch's own end of a process group, which now and then waits for ever in a forked rank,
# boxed or not (torch 2.13; seven of forty ranks of a plain script).
MODULE = """
import os, torch, torch.distributed as dist
def work(rank, results, port):
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()
    results.put(float(model.module.weight.grad.sum()))
    os._exit(0)
"""
PROCESSES = """
import torch.multiprocessing, worker
context = torch.multiprocessing.get_context({kind!r})
results = context.SimpleQueue()
ranks = [context.Process(target=worker.work, args=(rank, results, {port})) for rank in range(2)]
for rank in ranks: rank.start()
for rank in ranks: rank.join(100)
failed = any(rank.exitcode for rank in ranks)
[rank.exitcode for rank in ranks], None if failed else [results.get() for _ in ranks]
"""


@pytest.mark.slow
def test_the_work_of_exercises_can_be_done_in_a_box(code_notebook):
    layers = probe().policy().layers
    if "network" not in layers and "system_calls" in layers:
        assert "network" in probe().refused  # then `doctor` says that such exercises cannot run
        return
    cells = [TRAIN, LOADER, LAUNCH.format(world_size=2), LAUNCH.format(world_size=4)]
    cells += [PROCESSES.format(kind=kind, port=port) for kind, port in (("fork", 29601), ("spawn", 29602))]
    # The ports are the box's own.
    job = Job(code_notebook(*cells), {"worker.py": MODULE.encode()}, LONG, sandbox=Policy(layers))
    run = run_notebook(job)
    done = json.loads(run.notebook)["cells"]
    assert run.states == ("ok",) * len(cells), [cell["outputs"] for cell in done]
    values = [value(cell) for cell in done]
    assert values[:4] == ["32.0", "64.0", "[2.0, 2.0]", "[4.0, 4.0, 4.0, 4.0]"]
    assert values[4:] == ["([0, 0], [2.0, 2.0])"] * 2


@pytest.mark.slow
def test_where_a_notebook_launches_ranks_they_are_forked_without_another_import_of_torch(code_notebook):
    launched, which = LAUNCH.format(world_size=2), "type(current_template().process).__name__"
    cells = [TRAIN, launched, f"from coursekit.parallel._template import current_template\n{which}"]
    layers = probe().policy().layers
    preload = modules_for(launched)
    box = Policy(layers if "network" in layers else frozenset(), preload=preload)
    run = run_notebook(Job(code_notebook(*cells), limits=LONG, sandbox=box))
    done = json.loads(run.notebook)["cells"]
    assert run.states == ("ok",) * 3, [cell["outputs"] for cell in done]
    assert [value(cell) for cell in done] == ["32.0", "[2.0, 2.0]", "'_Forked'"]


@pytest.mark.slow
def test_tensorflow_works_in_a_box(code_notebook):
    source = "import tensorflow as tf\nfloat(tf.reduce_sum(tf.ones(3)))"
    job = Job(code_notebook(source), limits=LONG, sandbox=Policy(probe().policy().layers, preload=()))
    run = run_notebook(job)
    assert run.states == ("ok",), run.notebook
    assert value(json.loads(run.notebook)["cells"][0]) == "3.0"


def test_a_pip_without_a_network_does_not_try_again():
    alone, others = (_boxed({}, "/box", Policy(frozenset(layers))) for layers in ({"network"}, {"limits"}))
    assert alone["PIP_RETRIES"] == "0"
    assert "PIP_RETRIES" not in others
