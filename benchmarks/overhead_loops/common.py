"""What every loop of the overhead benchmark trains, and how it is timed and logged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from coursekit.models import GPT, GPTConfig

MAX_LR, MAX_GRAD_NORM, TOTAL_STEPS, LOG_EVERY, MICRO_BATCHES = 1e-3, 1.0, 100_000, 10, 2
Batch = tuple[Tensor, Tensor]
Run = Callable[[int], tuple[float, float]]  # steps → wall and CPU seconds


@dataclass(frozen=True)
class Task:
    """A model and its data; `block_steps` steps are timed at a time."""

    name: str
    make_model: Callable[[], nn.Module]
    make_batch: Callable[[torch.Generator], Batch]
    block_steps: int

    def start(self) -> tuple[nn.Module, torch.optim.Optimizer, Iterator[list[Batch]]]:
        """Return a fresh model, its optimizer, and endless steps: the same for every loop."""
        torch.manual_seed(0)
        model = self.make_model()
        generator = torch.Generator().manual_seed(1)
        pool = [[self.make_batch(generator) for _ in range(MICRO_BATCHES)] for _ in range(16)]
        steps = (pool[step % len(pool)] for step in iter(int, 1) for step in range(len(pool)))
        return model, torch.optim.AdamW(model.parameters(), lr=MAX_LR), steps


def mlp_batch(generator: torch.Generator) -> Batch:
    return torch.randn(32, 32, generator=generator), torch.randint(10, (32,), generator=generator)


def gpt_batch(generator: torch.Generator) -> Batch:
    tokens = torch.randint(256, (4, 65), generator=generator)
    return tokens[:, :-1], tokens[:, 1:].contiguous()


TASKS = (
    Task("tiny MLP", lambda: nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)), mlp_batch, 60),
    Task(
        "GPT",
        lambda: GPT(GPTConfig(vocab_size=256, max_seq_len=64, d_model=128, n_layers=2, n_heads=4)),
        gpt_batch,
        3,
    ),
)


def lr_at(step: int) -> float:
    return MAX_LR * 0.5 * (1 + math.cos(math.pi * min(step, TOTAL_STEPS) / TOTAL_STEPS))


def loss_sum_of(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def count(micro_batches: list[Batch]) -> int:
    return sum(int((labels != -100).sum()) for _, labels in micro_batches)


def timed(train: Callable[[int], object]) -> Run:
    def run(num_steps: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        train(num_steps)
        return time.perf_counter() - wall, time.process_time() - cpu

    return run


class Log:
    """The line of JSON that loops without a monitor of their own write."""

    def __init__(self, path: Path) -> None:
        self.file, self.start = path.open("a"), time.perf_counter()

    def write_every(self, step: int, loss: Tensor, grad_norm: Tensor, lr: float) -> None:
        """Write every `LOG_EVERY`-th step, reading its tensors."""
        if (step + 1) % LOG_EVERY:
            return
        self.write(step, loss.item(), grad_norm.item(), lr)

    def write(self, step: int, loss: float, grad_norm: float, lr: float) -> None:
        """Write one line."""
        seconds, self.start = time.perf_counter() - self.start, time.perf_counter()
        figures = {"step": step, "loss": loss, "grad_norm": grad_norm, "lr": lr}
        self.file.write(json.dumps({**figures, "step_seconds": seconds / LOG_EVERY}) + "\n")
        self.file.flush()
