"""How fast does a GPT train on this GPU, and with how much memory: precisions, compile, checkpointing?

    python benchmarks/gpu.py                        # GPT-2 small; JSON and a plot into build/benchmarks
    python benchmarks/gpu.py --device cpu --tiny    # the same code in a minute, for a machine without a GPU

Each setting is measured twice: with the visible loop of coursekit, and with a plain loop as nanoGPT has it
(mean loss divided by the micro-batches, `clip_grad_norm_`, fused AdamW). Both train the same model on the
same tokens, and both must come to the same losses before a figure counts. They take turns, block by block, so
a GPU that slows down as it gets warm slows down both. Peak memory is of each loop alone, before they take
turns.

MFU counts 6 N + 12 L d t flops a token (Chowdhery et al. 2022, appendix B,
https://arxiv.org/abs/2204.02311), N without position embeddings, whatever checkpointing computes again; the
peak is the vendor's for the dtype of the matrix products, dense.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from gpu_loops import LOOPS, Setting, Step, Task

from coursekit.models import GPTConfig, num_params, preset
from coursekit.train import measure_peak_memory, model_flops_utilization, synchronize
from coursekit.units import GiB

PEAK_TFLOPS = {  # dense, from the vendor's data sheets; the first name that the device's name contains
    "H200": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    "H100 PCIe": {"fp32": 51.2, "tf32": 378.0, "bf16": 756.0},
    "H100": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    "A100": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0},
    "L4": {"fp32": 30.3, "tf32": 60.0, "bf16": 121.0},
    "RTX 4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2},
}
SETTINGS = [
    Setting("fp32"),
    Setting("tf32"),
    Setting("bf16"),
    Setting("bf16", checkpointed=True),
    Setting("bf16", compiled=True),
    Setting("bf16", compiled=True, checkpointed=True),
]


@contextlib.contextmanager
def matmul_precision(setting: Setting) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if setting.precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def first_steps(
    make: Callable[[Task, Setting], Step], task: Task, setting: Setting
) -> tuple[list[float], int | None]:
    """Return the losses of a loop's first steps and the most bytes it held; None on a CPU."""
    gc.collect()
    on_cpu = task.device.type == "cpu"
    if not on_cpu:
        torch.accelerator.empty_cache()
    with contextlib.nullcontext() if on_cpu else measure_peak_memory(task.device) as memory:
        train_step = make(task, setting)
        losses = torch.stack([train_step(step) for step in range(8)]).tolist()
    return losses, None if on_cpu else memory.peak_bytes


def blocks_in_turn(task: Task, setting: Setting) -> dict[str, list[float]]:
    """Return for each loop the tokens a second of each block of steps."""
    steps = {name: make(task, setting) for name, make in LOOPS.items()}
    for train_step in steps.values():
        for step in range(3):  # warm-up: compilation, the allocator, the optimizer's state
            train_step(step)
    rates = {name: [] for name in steps}
    for _ in range(task.rounds):
        for name, train_step in steps.items():
            synchronize(task.device)
            start = time.perf_counter()
            for step in range(task.block_steps):
                train_step(step)
            synchronize(task.device)
            rates[name].append(task.block_steps * task.tokens_per_step / (time.perf_counter() - start))
    return rates


def measure(task: Task, setting: Setting) -> list[dict]:
    """Return a row of figures for each loop."""
    torch.compiler.reset()
    with matmul_precision(setting):
        firsts = {name: first_steps(make, task, setting) for name, make in LOOPS.items()}
        check_same_training(*(losses for losses, _ in firsts.values()))
        rates = blocks_in_turn(task, setting)
    rows = []
    for name, (first_losses, peak_bytes) in firsts.items():
        low, middle, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        row = {"setting": setting.name, "loop": name, "tokens_per_second": middle}
        row |= {"tokens_per_second_range": [low, high], "mfu": mfu(task, setting, middle)}
        rows.append(row | {"peak_bytes": peak_bytes, "first_losses": first_losses})
    return rows


def check_same_training(first: list[float], second: list[float]) -> None:
    """Stop unless two loops' losses are as good as equal: other work would not be comparable."""
    # They divide at different places, and so round differently: by far less than 5 % of what they learned.
    limit = 0.05 * (max(first) - min(first))
    if not max(abs(a - b) for a, b in zip(first, second, strict=True)) <= limit:
        raise SystemExit(f"the loops train differently: {first} and {second}")


def mfu(task: Task, setting: Setting, tokens_per_second: float) -> float | None:
    """Return the share of the device's peak, or None for a device whose peak is not known here."""
    name = torch.cuda.get_device_name(task.device) if task.device.type == "cuda" else ""
    tflops = next((peaks[setting.precision] for known, peaks in PEAK_TFLOPS.items() if known in name), None)
    if tflops is None:
        return None
    flops = flops_per_token(task.config, task.seq_len)
    return model_flops_utilization(
        tokens_per_second, flops_per_token=flops, peak_flops_per_second=1e12 * tflops
    )


def flops_per_token(config: GPTConfig, seq_len: int) -> float:
    positions = config.max_seq_len * config.d_model if config.position == "learned" else 0
    return 6 * (num_params(config) - positions) + 12 * config.n_layers * config.d_model * seq_len


def show(row: dict) -> None:
    low, high = row["tokens_per_second_range"]
    mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
    memory = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / GiB:.2f}"
    rate = f"{row['tokens_per_second']:>10,.0f}  {low:>10,.0f} to {high:>10,.0f}"
    print(f"{row['setting']:<28} {row['loop']:<13} {rate} {mfu:>7} {memory:>9}", flush=True)


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    from coursekit.plots.style import PALETTE, course_style, finding

    settings = list(dict.fromkeys(row["setting"] for row in rows))[::-1]
    with course_style():
        figure, ax = plt.subplots(figsize=(6.4, 0.5 + 0.5 * len(settings)))
        for loop, color, shift in [("visible loop", "blue", 0.2), ("plain loop", "black", -0.2)]:
            rates = {row["setting"]: row["tokens_per_second"] for row in rows if row["loop"] == loop}
            heights = [settings.index(name) + shift for name in rates]
            ax.barh(heights, list(rates.values()), height=0.35, color=PALETTE[color], label=loop)
        ax.set_yticks(range(len(settings)), settings)
        ax.set_xlabel("tokens a second")
        ax.set_axisbelow(True)
        ax.legend()
        fastest = max(rows, key=lambda row: row["tokens_per_second"])["setting"]
        finding(ax, f"{fastest} trains fastest")
        figure.savefig(path)


def task_from(options: argparse.Namespace, device: torch.device) -> Task:
    if options.tiny:
        config = GPTConfig(vocab_size=256, max_seq_len=32, d_model=32, n_layers=2, n_heads=2)
        return Task(config, device, 2, 2, 32, rounds=2, block_steps=2, compile_backend="aot_eager")
    shape = (options.micro_batch_size, options.grad_accum_steps, 1024)
    return Task(preset(options.model), device, *shape, rounds=options.rounds, block_steps=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu together with --tiny")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: to check the code, not the speed")
    parser.add_argument("--model", default="gpt2", help="a name of coursekit.models.PRESETS")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="sequences of 1024 tokens")
    parser.add_argument("--grad-accum-steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10, help="blocks of five steps of each loop")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks/gpu.json"))
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing is measured; --device cpu --tiny runs the same code.")
        return
    task = task_from(options, device)
    facts = "tokens/s", "range", "MFU", "peak GiB"
    print("{:<28} {:<13} {:>10}  {:>24} {:>7} {:>9}".format("setting", "loop", *facts))
    rows = []
    for setting in SETTINGS:
        try:
            rows += measure(task, setting)
        except torch.OutOfMemoryError:
            print(
                f"{setting.name:<28} does not fit into the GPU's memory; see --micro-batch-size", flush=True
            )
            continue
        for row in rows[-len(LOOPS) :]:
            show(row)
    if not rows:
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    machine = {"device": name, "system": platform.platform(), "torch": torch.__version__}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine, "task": asdict(task) | {"device": str(device)}, "rows": rows}
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    plot(rows, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
