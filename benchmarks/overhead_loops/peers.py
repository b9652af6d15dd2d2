"""The same loop with accelerate, Lightning Fabric and transformers' Trainer, each as its guide has it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from overhead_loops.common import (
    LOG_EVERY,
    MAX_GRAD_NORM,
    MAX_LR,
    MICRO_BATCHES,
    Log,
    Run,
    Task,
    count,
    loss_sum_of,
    lr_at,
    timed,
)
from torch import nn


def accelerate_loop(task: Task, path: Path) -> tuple[nn.Module, Run]:
    """As accelerate's guide on gradient accumulation has it for samples of variable size."""
    from accelerate import Accelerator

    bare, optimizer, steps = task.start()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=MICRO_BATCHES)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_at(step) / MAX_LR)
    model, optimizer, scheduler = accelerator.prepare(bare, optimizer, scheduler)
    log, numbers = Log(path), iter(range(sys.maxsize))

    def train(num_steps: int) -> None:
        for _ in range(num_steps):
            step, micro_batches, total = next(numbers), next(steps), torch.zeros(())
            num_valid = count(micro_batches)
            for inputs, labels in micro_batches:
                with accelerator.accumulate(model):
                    loss = loss_sum_of(model(inputs), labels) * MICRO_BATCHES / num_valid
                    accelerator.backward(loss)  # divides by the number of micro-batches
                    total += loss.detach()
                    if accelerator.sync_gradients:
                        grad_norm = accelerator.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            log.write_every(step, total / MICRO_BATCHES, grad_norm, optimizer.param_groups[0]["lr"])

    return bare, timed(train)


def fabric_loop(task: Task, path: Path) -> tuple[nn.Module, Run]:
    """As Fabric's guide on gradient accumulation has it."""
    from lightning_fabric import Fabric

    bare, optimizer, steps = task.start()
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(bare, optimizer)
    log, numbers = Log(path), iter(range(sys.maxsize))

    def train(num_steps: int) -> None:
        for _ in range(num_steps):
            step, micro_batches, total = next(numbers), next(steps), torch.zeros(())
            num_valid = count(micro_batches)
            for micro_step, (inputs, labels) in enumerate(micro_batches):
                is_accumulating = micro_step < MICRO_BATCHES - 1
                with fabric.no_backward_sync(model, enabled=is_accumulating):
                    loss = loss_sum_of(model(inputs), labels) / num_valid
                    fabric.backward(loss)
                    total += loss.detach()
            lr = lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            grad_norm = fabric.clip_gradients(
                model, optimizer, max_norm=MAX_GRAD_NORM, error_if_nonfinite=False
            )
            optimizer.step()
            optimizer.zero_grad()
            log.write_every(step, total, grad_norm, lr)

    return bare, timed(train)


def trainer_loop(task: Task, path: Path) -> tuple[nn.Module, Run]:
    """Only the steps are timed, from the begin of the first: `train` itself sets up anew at each call."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    model, optimizer, steps = task.start()
    log = Log(path)

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.start is None:
                self.start = time.perf_counter(), time.process_time()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "grad_norm" in logs:
                log.write(state.global_step, logs["loss"], logs["grad_norm"], logs["learning_rate"])

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.end = time.perf_counter(), time.process_time()

    class WithoutLoader(Trainer):
        def get_train_dataloader(self) -> list[dict]:  # the other loops have none either
            return self.micro_batches

    class Wrapped(nn.Module):  # Trainer writes into `model.config`, which here is frozen
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(inputs)

    def loss_of(logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        return loss_sum_of(logits, labels) / num_items_in_batch

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_at(step) / MAX_LR)
    clock = Clock()

    def run(num_steps: int) -> tuple[float, float]:
        arguments = TrainingArguments(
            output_dir=str(path.parent / "trainer"),
            use_cpu=True,
            max_steps=num_steps,
            gradient_accumulation_steps=MICRO_BATCHES,
            max_grad_norm=MAX_GRAD_NORM,
            logging_steps=LOG_EVERY,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = WithoutLoader(
            Wrapped(),
            arguments,
            optimizers=(optimizer, scheduler),
            callbacks=[clock],
            compute_loss_func=loss_of,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.micro_batches = [
            {"inputs": inputs, "labels": labels} for _ in range(num_steps) for inputs, labels in next(steps)
        ]
        clock.start = None
        trainer.train()
        return clock.end[0] - clock.start[0], clock.end[1] - clock.start[1]

    return model, run
