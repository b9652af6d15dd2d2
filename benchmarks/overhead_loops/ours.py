"""The loop in bare torch, with coursekit's functions, and as coursekit's `fit`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from overhead_loops.common import (
    LOG_EVERY,
    MAX_GRAD_NORM,
    TOTAL_STEPS,
    Batch,
    Log,
    Run,
    Task,
    count,
    loss_sum_of,
    lr_at,
    timed,
)
from torch import Tensor, nn

from coursekit.train import (
    JsonLines,
    Monitor,
    WarmupCosine,
    accumulate_gradients,
    clip_gradients,
    count_valid,
    fit,
    set_lr,
)

SCHEDULE = WarmupCosine(total_steps=TOTAL_STEPS)


def raw_loop(task: Task, path: Path) -> tuple[nn.Module, Run]:
    """Bare torch, with the loss weighed by valid tokens, as one writes it who knows the bug."""
    model, optimizer, steps = task.start()
    log, numbers = Log(path), iter(range(sys.maxsize))

    def train(num_steps: int) -> None:
        for _ in range(num_steps):
            step, micro_batches = next(numbers), next(steps)
            lr = lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            num_valid = count(micro_batches)
            total = torch.zeros(())
            for inputs, labels in micro_batches:
                loss = loss_sum_of(model(inputs), labels) / num_valid
                loss.backward()
                total += loss.detach()
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            log.write_every(step, total, grad_norm, lr)

    return model, timed(train)


def visible_loop(task: Task, path: Path) -> tuple[nn.Module, Run]:
    model, optimizer, steps = task.start()
    monitor, numbers = Monitor([JsonLines(path)], every=LOG_EVERY, detectors=()), iter(range(sys.maxsize))

    def loss_sum(micro_batch: Batch) -> Tensor:
        inputs, labels = micro_batch
        return loss_sum_of(model(inputs), labels)

    def train(num_steps: int) -> None:
        for _ in range(num_steps):
            step, micro_batches = next(numbers), next(steps)
            (lr,) = set_lr(optimizer, SCHEDULE(step))
            num_valid = count_valid(*(labels for _, labels in micro_batches))
            loss = accumulate_gradients(loss_sum, micro_batches, num_valid=num_valid)
            grad_norm = clip_gradients(model, MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            monitor.log(step, num_tokens=num_valid, loss=loss, grad_norm=grad_norm, lr=lr)

    return model, timed(train)


def fit_loop(task: Task, path: Path) -> tuple[nn.Module, Run]:
    model, optimizer, steps = task.start()
    monitor, first_step = Monitor([JsonLines(path)], every=LOG_EVERY, detectors=()), 0

    def loss_sum(micro_batch: Batch) -> Tensor:
        inputs, labels = micro_batch
        return loss_sum_of(model(inputs), labels)

    def train(num_steps: int) -> None:
        nonlocal first_step
        first_step = fit(
            loss_sum,
            (next(steps) for _ in range(num_steps)),
            model=model,
            optimizer=optimizer,
            count=lambda group: count_valid(*(labels for _, labels in group)),
            schedule=SCHEDULE,
            max_grad_norm=MAX_GRAD_NORM,
            monitor=monitor,
            first_step=first_step,
        )

    return model, timed(train)
