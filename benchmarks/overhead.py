"""How many steps a second does each way of writing the training loop make, beside bare torch?

    python benchmarks/overhead.py

Every loop trains the same model on the same batches with the same features: two micro-batches a step, the
loss weighed by valid tokens, AdamW, clipping by the global norm, a cosine schedule, a line of JSON every ten
steps. Before anything is timed, each must end in the parameters of the raw loop. They take turns in one
process, a few steps each, in random order; a ratio is that of two blocks of one round, and the interval is a
bootstrap of the median over the rounds. "raw again" is a second raw loop: what is nearer to 1 is noise.

The monitor of coursekit has its detectors off, as the other loops have none. A peer that cannot be imported
is left out. Peers are no dependency of this project; to have them without changing its environment:

    pip install --target peers --no-deps accelerate==1.15.0 lightning-fabric==2.6.6 lightning-utilities \
        transformers==5.23.0 huggingface_hub safetensors tokenizers regex tqdm hf-xet httpx2 httpcore2 \
        truststore filelock click anyio h11
    PYTHONPATH=peers python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from overhead_loops import ours, peers
from overhead_loops.common import TASKS, Task

LOOPS: dict[str, tuple[str | None, Callable]] = {  # the package that a loop needs, and the loop
    "raw": (None, ours.raw_loop),
    "raw again": (None, ours.raw_loop),
    "visible loop": (None, ours.visible_loop),
    "fit()": (None, ours.fit_loop),
    "accelerate": ("accelerate", peers.accelerate_loop),
    "Fabric": ("lightning_fabric", peers.fabric_loop),
    "Trainer": ("transformers", peers.trainer_loop),
}


def measure(task: Task, *, rounds: int, names: list[str], folder: Path) -> dict[str, np.ndarray]:
    """Return for each loop the (wall, CPU) seconds of a step in each round, of shape (rounds, 2)."""
    runs = {}
    parameters = {}
    for name in names:
        model, runs[name] = LOOPS[name][1](task, folder / f"{name}.jsonl")
        runs[name](2 * task.block_steps)  # warm-up
        parameters[name] = torch.cat([p.detach().flatten() for p in model.parameters()])
    for name, ends in parameters.items():
        # Other work would not be comparable. In float32 the order of sums shows.
        torch.testing.assert_close(
            ends, parameters["raw"], rtol=1e-3, atol=1e-4, msg=f"{name} trains otherwise"
        )
    seconds = {name: [] for name in names}
    order = random.Random(0)
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name in order.sample(names, len(names)):
            seconds[name].append(np.array(runs[name](task.block_steps)) / task.block_steps)
    return {name: np.array(values) for name, values in seconds.items()}


def median_ratio(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float, float]:
    """Return the median of the paired ratios and its 95 % bootstrap interval."""
    ratios = numerator / denominator
    draws = np.random.default_rng(0).integers(len(ratios), size=(4000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def rows_of(task: Task, seconds: dict[str, np.ndarray]) -> list[dict]:
    raw = seconds["raw"]
    return [
        {
            "task": task.name,
            "loop": name,
            "steps_per_second": float(1 / np.median(own[:, 0])),
            "speed_to_raw": median_ratio(raw[:, 0], own[:, 0]),
            "speed_to_raw_cpu_time": median_ratio(raw[:, 1], own[:, 1]),
            "visible_loop_to_this": median_ratio(own[:, 0], seconds["visible loop"][:, 0]),
        }
        for name, own in seconds.items()
    ]


def show(row: dict) -> None:
    def text(values: tuple[float, float, float]) -> str:
        return "{:.3f} ({:.3f} to {:.3f})".format(*values)

    print(
        f"{row['task']:<9} {row['loop']:<13} {row['steps_per_second']:>8.1f}  "
        f"{text(row['speed_to_raw']):<24} "
        f"{text(row['speed_to_raw_cpu_time']):<24} {text(row['visible_loop_to_this'])}",
        flush=True,
    )


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    from coursekit.plots.style import PALETTE, course_style, finding

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    with course_style():
        figure, axes = plt.subplots(1, len(tasks), figsize=(3.8 * len(tasks), 3.2), squeeze=False)
        for ax, task in zip(axes[0], tasks, strict=True):
            own = [row for row in rows if row["task"] == task and row["loop"] != "raw"][::-1]
            for height, row in enumerate(own):
                middle, low, high = row["speed_to_raw"]
                color = PALETTE["blue" if row["loop"] in ("visible loop", "fit()") else "black"]
                ax.errorbar(middle, height, xerr=[[middle - low], [high - middle]], fmt="o", color=color)
            ax.axvline(1.0, color=PALETTE["black"], linewidth=0.8)
            ax.set_yticks(range(len(own)), [row["loop"] for row in own])
            ax.set_xlabel("speed, raw loop = 1")
            visible = next(row for row in own if row["loop"] == "visible loop")["speed_to_raw"][0]
            finding(ax, f"{task}: the visible loop has {visible:.2f} of the raw loop's speed")
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="blocks of steps of each loop")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks/overhead.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # what is compared is the loop, not how threads share the machine
    names = [name for name, (package, _) in LOOPS.items() if not package or importlib.util.find_spec(package)]
    for name in LOOPS.keys() - set(names):
        print(f"{name} is left out: {LOOPS[name][0]} is not installed; see the top of {Path(__file__).name}")
    facts = "task", "loop", "steps/s", "speed to raw (95 %)", "in CPU time"
    print("{:<9} {:<13} {:>8}  {:<24} {:<24} visible loop to it".format(*facts))
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peers say of their own settings
        for task in TASKS:
            seconds = measure(task, rounds=options.rounds, names=names, folder=Path(folder))
            rows += rows_of(task, seconds)
            for row in rows[-len(names) :]:
                show(row)
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "torch": torch.__version__}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine, "rounds": options.rounds, "rows": rows}
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    plot(rows, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
