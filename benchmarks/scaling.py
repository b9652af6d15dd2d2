"""How does a training step scale from 1 to 2 and 4 processes, with the work fixed or growing with them?

    python benchmarks/scaling.py

Trains a GPT with DDP on gloo, one thread a process. Strong scaling splits one global batch among the ranks;
weak scaling gives every rank as much as the single process has. Efficiency is the throughput over N times
that of one process. The order of the runs is mixed, so that what else the machine does spreads over all.
Where there are fewer cores than processes the ranks share them, and no more than that number can be won.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from coursekit.models import GPT, GPTConfig
from coursekit.parallel import count_communication, launch, replicate
from coursekit.units import format_bytes

CONFIG = GPTConfig(vocab_size=256, max_seq_len=64, d_model=128, n_layers=4, n_heads=4)
WARMUP_STEPS = 3
REPEATS = 5


def train(rows: int, steps: int) -> tuple[float, float]:
    """Train on `rows` sequences a step; return the seconds of a step, and the bytes it sends on a ring."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = GPT(CONFIG)
    model = replicate(model) if dist.get_world_size() > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    input_ids = torch.randint(CONFIG.vocab_size, (rows, CONFIG.max_seq_len))

    def step() -> None:
        logits = model(input_ids[:, :-1]).flatten(0, 1)
        nn.functional.cross_entropy(logits, input_ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(WARMUP_STEPS):
        step()
    dist.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    dist.barrier()
    seconds = (time.perf_counter() - start) / steps
    with count_communication() as communication:
        step()
    return seconds, communication.ring_bytes


def measure(world_sizes: list[int], rows: int, steps: int) -> list[dict]:
    """Return a row for each number of processes and way of scaling."""
    plans = [(kind, size) for kind in ("strong", "weak") for size in world_sizes]
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {plan: [] for plan in plans}
    for repeat in range(REPEATS):
        print(f"repeat {repeat + 1} of {REPEATS}", flush=True)
        for kind, size in random.sample(plans, len(plans)):
            own_rows = rows // size if kind == "strong" else rows
            results = launch(train, size, own_rows, steps)
            runs[kind, size].append((max(seconds for seconds, _ in results), results[0][1]))
    table = []
    for kind, size in plans:
        seconds = [s for s, _ in runs[kind, size]]
        tokens = rows * (1 if kind == "strong" else size) * (CONFIG.max_seq_len - 1)
        rates = sorted(tokens / s for s in seconds)
        table.append(
            {
                "scaling": kind,
                "world_size": size,
                "tokens_per_second": statistics.median(rates),
                "range_tokens_per_second": [rates[0], rates[-1]],
                "ring_bytes_per_step": runs[kind, size][0][1],
            }
        )
    for row in table:
        one = next(r for r in table if r["scaling"] == row["scaling"] and r["world_size"] == world_sizes[0])
        row["times_one_process"] = row["tokens_per_second"] / one["tokens_per_second"]
    return table


def show(table: list[dict]) -> None:
    """Print the table."""
    heads = f"{'scaling':<8}{'ranks':>6}{'tokens/s':>11}{'range':>17}{'times one':>11}"
    print(heads + f"{'efficiency':>12}{'sent a step':>14}")
    for row in table:
        low, high = row["range_tokens_per_second"]
        efficiency = row["times_one_process"] / row["world_size"]
        print(
            f"{row['scaling']:<8}{row['world_size']:>6}{row['tokens_per_second']:>11,.0f}"
            f"{f'{low:,.0f} to {high:,.0f}':>17}{row['times_one_process']:>11.2f}{efficiency:>12.2f}"
            f"{format_bytes(row['ring_bytes_per_step']):>14}"
        )


def draw(table: list[dict], path: Path) -> None:
    """Draw throughput against processes, beside the ideal and the number of cores."""
    import matplotlib.pyplot as plt

    from coursekit.plots import course_style, label_lines, line_style

    with course_style():
        _, ax = plt.subplots()
        sizes = sorted({row["world_size"] for row in table})
        ax.plot(sizes, sizes, color="#6B6B6B", ls=":", label="ideal")
        for k, kind in enumerate(("strong", "weak")):
            rates = [row["times_one_process"] for row in table if row["scaling"] == kind]
            ax.plot(sizes, rates, "o", ls=line_style(k), label=f"{kind} scaling")
        ax.set(
            xlabel="number of processes",
            ylabel="tokens a second, over one process",
            title=f"Data parallelism on {os.cpu_count()} cores",
            xticks=sizes,
        )
        ax.set_xlim(min(sizes), max(sizes) * 1.3)
        label_lines(ax)
        plt.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--world-sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rows", type=int, default=16, help="sequences a step of one process")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks/scaling.json"))
    options = parser.parse_args()
    table = measure(options.world_sizes, options.rows, options.steps)
    show(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "torch": torch.__version__}
    options.json.write_text(json.dumps({"machine": machine, "rows": table}, indent=1) + "\n")
    draw(table, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
