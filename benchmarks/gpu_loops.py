"""The two loops that the GPU benchmark compares, and what they train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coursekit.models import GPT, GPTConfig
from coursekit.train import (
    WarmupCosine,
    accumulate_gradients,
    autocast,
    checkpoint_layers,
    clip_gradients,
    count_valid,
    make_optimizer,
    parameter_groups,
    set_lr,
)

MAX_LR, MAX_GRAD_NORM, WEIGHT_DECAY, BETAS = 6e-4, 1.0, 0.1, (0.9, 0.95)
Step = Callable[[int], Tensor]  # step number → mean loss, left on the device


@dataclass(frozen=True)
class Setting:
    """One way to compute: a precision, and whether to compile and to recompute activations."""

    precision: str  # fp32, tf32 or bf16
    compiled: bool = False
    checkpointed: bool = False

    @property
    def name(self) -> str:
        """The setting in words."""
        return self.precision + " compile" * self.compiled + " checkpointing" * self.checkpointed


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and for how long."""

    config: GPTConfig
    device: torch.device
    micro_batch_size: int
    grad_accum_steps: int
    seq_len: int
    rounds: int
    block_steps: int
    compile_backend: str = "inductor"

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step."""
        return self.micro_batch_size * self.grad_accum_steps * self.seq_len

    def batches(self) -> list[list[tuple[Tensor, Tensor]]]:
        """Return two steps' micro-batches on the device, to be used in turn: no loading is measured."""
        generator = torch.Generator().manual_seed(1)
        shape = (2, self.grad_accum_steps, self.micro_batch_size, self.seq_len + 1)
        tokens = torch.randint(self.config.vocab_size, shape, generator=generator).to(self.device)
        return [[(rows[:, :-1], rows[:, 1:].contiguous()) for rows in step] for step in tokens]


def model_of(task: Task, setting: Setting) -> GPT:
    torch.manual_seed(0)
    with task.device:
        model = GPT(task.config)
    if setting.checkpointed:
        checkpoint_layers(model.blocks)
    if setting.compiled:
        model.compile(backend=task.compile_backend)
    return model


def lr_at(step: int) -> float:
    """The plain loop's own schedule: nanoGPT's, written out."""
    if step < 10:
        return MAX_LR * (step + 1) / 11
    return MAX_LR * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - 10) / 990))))


def plain_loop(task: Task, setting: Setting) -> Step:
    model, batches = model_of(task, setting), task.batches()
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=MAX_LR, betas=BETAS, fused=True)
    is_bf16 = setting.precision == "bf16"

    def train_step(step: int) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        total = torch.zeros((), device=task.device)
        for input_ids, labels in batches[step % 2]:
            with torch.autocast(task.device.type, torch.bfloat16, enabled=is_bf16):
                logits = model(input_ids)
                loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()) / task.grad_accum_steps
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return train_step


def visible_loop(task: Task, setting: Setting) -> Step:
    model, batches = model_of(task, setting), task.batches()
    optimizer = make_optimizer(
        "adamw", parameter_groups(model, weight_decay=WEIGHT_DECAY), lr=MAX_LR, betas=BETAS
    )
    schedule = WarmupCosine(total_steps=1000, warmup_steps=10, min_ratio=0.1)
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32

    def loss_sum(micro_batch: tuple[Tensor, Tensor]) -> Tensor:
        input_ids, labels = micro_batch
        with autocast(task.device, dtype):
            return F.cross_entropy(model(input_ids).flatten(0, 1), labels.flatten(), reduction="sum")

    def train_step(step: int) -> Tensor:
        set_lr(optimizer, schedule(step))
        micro_batches = batches[step % 2]
        num_valid = count_valid(*(labels for _, labels in micro_batches))
        loss = accumulate_gradients(loss_sum, micro_batches, num_valid=num_valid)
        clip_gradients(model, MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return train_step


LOOPS: dict[str, Callable[[Task, Setting], Step]] = {"visible loop": visible_loop, "plain loop": plain_loop}
