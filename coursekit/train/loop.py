"""`fit`: the visible loop as one call, made of the same functions and giving the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole
from coursekit.train.clipping import clip_gradients
from coursekit.train.gradient_accumulation import accumulate_gradients
from coursekit.train.loss_scaling import LossScaler
from coursekit.train.monitor import Monitor
from coursekit.train.schedules import set_lr

T = TypeVar("T")
Named = Mapping[str, Any]


def fit(
    loss_sum: Callable[[T], Tensor | Named],
    steps: Iterable[Sequence[T]],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    count: Callable[[Sequence[T]], int | Named],
    schedule: Callable[[int], float] | None = None,
    max_grad_norm: float = float("inf"),
    scaler: torch.amp.GradScaler | None = None,
    monitor: Monitor | None = None,
    on_step_end: Callable[[int], object] | None = None,
    dp_size: int | None = None,
    first_step: int = 0,
) -> int:
    """Train `model` on all of `steps`, and return the number of the step that would come next.

    It does bit for bit what this loop does, and is no shorter way to anything that the loop cannot:

    ```python
    model.train()
    for step, micro_batches in enumerate(monitor.iterate("data", steps), first_step):
        (lr, *_) = set_lr(optimizer, schedule(step))
        optimizer.zero_grad()
        num_valid = count(micro_batches)
        loss = accumulate_gradients(loss_sum, micro_batches, num_valid=num_valid, module=model)
        grad_norm = clip_gradients(model, max_grad_norm)
        optimizer.step()
        monitor.log(step, num_tokens=num_valid, loss=loss, grad_norm=grad_norm, lr=lr)
        on_step_end(step)
    ```

    Args:
        loss_sum: see `accumulate_gradients`. For mixed precision wrap it:
            `autocast(device, torch.bfloat16)(loss_sum)`.
        steps: one list of micro-batches an optimizer step, as from `group_micro_batches`. A generator over
            several epochs is fine; fit stops where it ends.
        model: what is trained; the DDP- or FSDP-wrapped module, if there is one.
        optimizer: over the parameters of `model`.
        count: maps the micro-batches of a step to `num_valid` of `accumulate_gradients`, over all ranks, e.g.
            `lambda group: all_reduce_count(count_valid(*(labels for _, labels in group)))`. Of several
            counts the first is that of the tokens a second.
        schedule: maps a step to the multiplier of the optimizer's learning rates, see `set_lr`; None leaves
            them as they are. The monitor gets that of the first group.
        max_grad_norm: see `clip_gradients`; without it the norm is only measured.
        scaler: a `LossScaler`, for float16.
        monitor: gets `loss`, `grad_norm`, `lr`, the parts of several losses, and the phases data, forward,
            backward, optimizer. It is not closed.
        on_step_end: called with each step when it is done, e.g. to save a checkpoint.
        dp_size: ranks over which `model` averages gradients, see `accumulate_gradients`. The monitor of a
            rank then shows that rank's part of the loss.
        first_step: number of the first step, for a resumed run.
    Raises: InputError if `optimizer` holds no parameter of `model`, `schedule` is no function of the step (a
        torch scheduler is none), or a step is one batch and no list of them.
    """
    _check_optimizer(optimizer, model)
    check_whole("steps are counted from 0", least=0, first_step=first_step)
    if schedule is not None and not callable(schedule):
        expected, got = "a function of the step, such as WarmupCosine(...)", type(schedule).__name__
        raise InputError("no schedule", expected=expected, got=got, fix="step torch's in on_step_end")
    monitor = Monitor(detectors=()) if monitor is None else monitor
    scaler = LossScaler("cpu", enabled=False) if scaler is None else scaler
    forward = monitor.phase("forward")(loss_sum)
    backward = monitor.phase("backward")(lambda loss: scaler.scale(loss).backward())
    step = first_step - 1
    model.train()
    for step, micro_batches in enumerate(monitor.iterate("data", steps), first_step):
        lr = optimizer.param_groups[0]["lr"] if schedule is None else set_lr(optimizer, schedule(step))[0]
        optimizer.zero_grad()
        num_valid = count(micro_batches)
        loss = accumulate_gradients(
            forward, micro_batches, num_valid=num_valid, dp_size=dp_size, module=model, backward=backward
        )
        with monitor.phase("optimizer"):
            scaler.unscale_(optimizer)
            grad_norm = clip_gradients(model, max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
        monitor.log(step, num_tokens=_first(num_valid), **_losses(loss), grad_norm=grad_norm, lr=lr)
        if on_step_end is not None:
            on_step_end(step)
    return step + 1


def _first(num_valid: int | Tensor | Named) -> int | Tensor:
    return next(iter(num_valid.values())) if isinstance(num_valid, Mapping) else num_valid


def _losses(loss: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the figures of the loss: the whole, and its parts if it has several."""
    return {"loss": sum(loss.values()), **loss} if isinstance(loss, dict) else {"loss": loss}


def _check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        raise InputError(
            "the optimizer holds no parameter of the model",
            expected="an optimizer over model.parameters()",
            fix="make the optimizer after the model is complete, moved and wrapped",
        )
