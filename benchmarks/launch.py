"""How long until N processes have done one all-reduce, and who does it at all after OpenMP has worked before?

    python benchmarks/launch.py

Every way of starting runs the same job, from a parent that has imported torch (but torchrun, which is a
command): join a gloo process group, compute a little on two threads, add up the ranks, end. A way that
has not ended after the limit counts as hung, and is killed. "torch fork" is torch's `start_processes` by
fork; accelerate's `notebook_launcher`, measured where accelerate is installed, forks as well.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

LIMIT_SECONDS = 20.0
TORCHRUN_SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
torch.set_num_threads(2)
torch.ones(1_000_000).add_(1)
dist.all_reduce(torch.tensor(float(dist.get_rank())))
dist.destroy_process_group()
"""


def job() -> float:
    torch.set_num_threads(2)
    torch.ones(1_000_000).add_(1)  # large enough that OpenMP shares it out, as in any training step
    total = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(total)
    return total.item()


def joined_job(rank: int, world_size: int, port: int) -> None:
    """The job for launchers that leave the process group to the user."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    assert job() == world_size * (world_size - 1) / 2
    dist.destroy_process_group()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def with_launch(world_size: int) -> None:
    from coursekit.parallel import launch

    assert launch(job, world_size) == [world_size * (world_size - 1) / 2] * world_size


def with_start_method(method: str) -> Callable[[int], None]:
    def start(world_size: int) -> None:
        arguments = (world_size, free_port())
        torch.multiprocessing.start_processes(joined_job, arguments, world_size, start_method=method)

    return start


def with_accelerate(world_size: int) -> None:
    from accelerate import notebook_launcher

    notebook_launcher(accelerated_job, (world_size,), num_processes=world_size, use_port=str(free_port()))


def accelerated_job(world_size: int) -> None:
    from accelerate import PartialState

    PartialState(cpu=True)
    assert job() == world_size * (world_size - 1) / 2


def with_torchrun(world_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "job.py")
        script.write_text(TORCHRUN_SCRIPT)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={world_size}",
        ]
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, str(script)], check=True, capture_output=True, env=environ)


WAYS: dict[str, Callable[[int], None]] = {
    "coursekit launch": with_launch,
    "torch fork": with_start_method("fork"),
    "torch forkserver": with_start_method("forkserver"),
    "torch spawn": with_start_method("spawn"),
    "torchrun": with_torchrun,
}
if importlib.util.find_spec("accelerate"):
    WAYS["accelerate notebook_launcher"] = with_accelerate


def repeat(
    name: str, world_size: int, runs: int, openmp: bool, pipe: multiprocessing.connection.Connection
) -> None:
    """In a process of its own: run one way several times, telling the seconds of each run."""
    os.setpgid(0, 0)
    if openmp:
        torch.set_num_threads(2)
        torch.ones(1_000_000).add_(1)
    for _ in range(runs):
        start = time.perf_counter()
        WAYS[name](world_size)
        pipe.send(time.perf_counter() - start)
    pipe.close()


def measure(name: str, world_size: int, *, runs: int, openmp: bool) -> dict:
    """Return the seconds of the first and the later runs of one way, or that it hung or failed."""
    context = multiprocessing.get_context("spawn")  # a parent that no other way has touched
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=repeat, args=(name, world_size, runs, openmp, theirs))
    process.start()
    theirs.close()
    seconds, outcome = [], "ok"
    try:
        while len(seconds) < runs:
            if not ours.poll(LIMIT_SECONDS):
                outcome = "hung"
                break
            seconds.append(ours.recv())
    except EOFError:
        outcome = "failed"
    process.join(1 if outcome == "hung" else LIMIT_SECONDS)
    if process.is_alive():
        os.killpg(process.pid, 9)  # the way's own processes as well
        process.join()
    later = seconds[1:]
    return {
        "way": name,
        "world_size": world_size,
        "after_openmp": openmp,
        "outcome": outcome,
        "first_seconds": seconds[0] if seconds else None,
        "later_median_seconds": statistics.median(later) if later else None,
        "later_range_seconds": [min(later), max(later)] if later else None,
    }


def show(row: dict) -> None:
    def text(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds:.3f}"

    low, high = row["later_range_seconds"] or (None, None)
    openmp = "yes" if row["after_openmp"] else "no"
    facts = f"{row['way']:<28} {row['world_size']:>5} {openmp:>7} {row['outcome']:>7}"
    first, later = text(row["first_seconds"]), text(row["later_median_seconds"])
    print(f"{facts} {first:>8} {later:>8}   {text(low)} to {text(high)}", flush=True)


def plot(rows: list[dict], path: Path) -> None:
    """Draw the median of the later starts of each way that ended, with and without OpenMP work before."""
    import matplotlib.pyplot as plt

    from coursekit.plots import course_style

    world_size = min(row["world_size"] for row in rows)
    with course_style():
        _, ax = plt.subplots()
        for openmp, marker in ((False, "o"), (True, "x")):
            ended = [
                row
                for row in rows
                if (row["world_size"], row["after_openmp"]) == (world_size, openmp)
                and row["later_median_seconds"] is not None
            ]
            ways, seconds = [r["way"] for r in ended], [r["later_median_seconds"] for r in ended]
            ax.plot(seconds, ways, marker, label="after OpenMP work" if openmp else "fresh process")
        ax.set(xscale="log", xlabel="seconds of a later start", title=f"Starting {world_size} ranks")
        ax.legend()
        plt.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--runs", type=int, default=6, help="runs of each way; the first is told apart")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks/launch.json"), help="the figures")
    options = parser.parse_args()
    print(f"{'way':<28} {'ranks':>5} {'openmp':>7} {'outcome':>7} {'first s':>8} {'later s':>8}   range")
    rows = []
    for openmp in (False, True):
        for world_size in options.world_sizes:
            for name in WAYS:
                rows.append(measure(name, world_size, runs=options.runs, openmp=openmp))
                show(rows[-1])
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "torch": torch.__version__}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    plot(rows, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
