"""The learning-rate range test: a short run with a rising learning rate that leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole

from .optimizers import held_parameters
from .seed import preserve_rng


@dataclass(frozen=True)
class LRSweep:
    """What `find_lr` saw; the lists have one entry a step.

    Attributes:
        lrs: learning rate of each step, of the group whose `lr` is the largest.
        losses: loss that each step returned.
        smoothed: moving mean of the losses, corrected for its start as Adam's means are.
        diverged: whether the sweep ended because the loss grew, and not at `max_lr`.
        suggestion: where the smoothed loss falls fastest over log(lr), up to its lowest point; None if it
            never falls.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool
    suggestion: float | None


def find_lr(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    train_step: Callable[[], Tensor | float],
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 100,
    smoothing: float = 0.9,
    divergence_factor: float = 4.0,
) -> LRSweep:
    """Return losses over learning rates of a trial run that leaves model, optimizer and randomness unchanged.

        lr(k) = min_lr (max_lr / min_lr)^(k / (K − 1)),   k = 0 ... K − 1

    Stops as soon as a loss isn't finite, or the smoothed loss is above `divergence_factor` times its lowest
    value. The suggestion is a place to start from, not an optimum: it is the steepest fall of *this* short
    run, with this batch size and no schedule. Choose less where the curve is noisy, and look at it.

    Afterwards parameters, buffers, gradients, training modes, the optimizer's state and groups, and the
    random states are bit for bit what they were, also if `train_step` raises. Not put back: the batches that
    `train_step` took from its loader, and whatever else it keeps (the scale of a `GradScaler`). Under data
    parallelism let it return the mean over ranks, so that all ranks stop together.

    Args:
        model: the model that `train_step` trains.
        optimizer: its optimizer. Groups keep the ratios of their learning rates.
        train_step: does one whole optimizer step on a new batch, zeroing included; returns the loss.
        min_lr: learning rate of the first step, above 0.
        max_lr: learning rate of the last step, above `min_lr`.
        num_steps: K, at least 2.
        smoothing: share of itself that the moving mean of the loss keeps, from 0 to below 1.
        divergence_factor: above 1. It assumes losses above 0, as cross-entropy and squared errors are.
    Raises: InputError for numbers out of their range, an optimizer whose learning rates are all 0 or that
        holds parameters of another model, or a `train_step` that returns no loss.
    Source: Smith 2017, section 3.3 (https://arxiv.org/abs/1506.01186).
    """
    _check(min_lr, max_lr, num_steps, smoothing, divergence_factor)
    held_parameters(optimizer, model)  # another model's would be trained, and stay so
    lrs, losses, smoothed = [], [], []
    diverged = False
    with _restored(model, optimizer), preserve_rng():
        ratios = _ratios(optimizer)
        for k in range(num_steps):
            lrs.append(min_lr * (max_lr / min_lr) ** (k / (num_steps - 1)))
            _set(optimizer, lrs[-1], ratios)
            loss = train_step()
            losses.append(_number(loss))
            smoothed.append(_next_mean(losses, smoothed, smoothing))
            if not smoothed[-1] <= divergence_factor * min(smoothed):  # NaN compares false: it ends here too
                diverged = True
                break
    return LRSweep(lrs, losses, smoothed, diverged, _steepest(lrs, smoothed))


def _number(loss: Tensor | float) -> float:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss.item()  # waits for the device: a trial run may
    if isinstance(loss, (int, float)):
        return loss
    got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise InputError("train_step returned no loss", expected="a number, or a tensor of one", got=got)


def _next_mean(losses: list[float], means: list[float], smoothing: float) -> float:
    """Return the corrected moving mean of all losses, from the last loss and the mean before it."""
    if not means:
        return losses[0]
    # Added as a difference, so that equal losses have exactly that mean, and no slope by rounding.
    return means[-1] + (losses[-1] - means[-1]) * (1 - smoothing) / (1 - smoothing ** len(losses))


def _steepest(lrs: list[float], smoothed: list[float]) -> float | None:
    """Return the lr, up to that of the lowest point, where the slope over log(lr) is most negative."""
    finite = [value if math.isfinite(value) else math.inf for value in smoothed]
    lowest = finite.index(min(finite))
    slopes = [
        # Central difference: of two neighbours the left one alone would say what the step before did.
        (finite[k + 1] - finite[k - 1], lrs[k])
        for k in range(1, min(lowest + 1, len(lrs) - 1))
    ]
    slope, lr = min(slopes, default=(0.0, 0.0))
    return lr if slope < 0 else None


def _ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    lrs = [float(group["lr"]) for group in optimizer.param_groups]
    if not max(lrs) > 0:
        raise InputError("no ratios can be kept between groups", expected="an lr above 0", got=lrs)
    return [lr / max(lrs) for lr in lrs]


def _set(optimizer: torch.optim.Optimizer, lr: float, ratios: list[float]) -> None:
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * ratio)
        else:
            group["lr"] = lr * ratio


@contextlib.contextmanager
def _restored(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put values back into the same tensors: others (a compiled step, DDP's buckets) may hold them."""
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modules = [(module, module.training, dict(module._buffers)) for module in model.modules()]
    # Not through load_state_dict, which casts the state to the parameter's dtype.
    state = {parameter: copy.deepcopy(value) for parameter, value in optimizer.state.items()}
    groups = [
        {k: (v, copy.deepcopy(v)) for k, v in g.items() if k != "params"} for g in optimizer.param_groups
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)
            for parameter, gradient, value in gradients:
                parameter.grad = gradient
                if gradient is not None:
                    gradient.copy_(value)
            for module, training, buffers in modules:
                module.training = training
                module._buffers.update(buffers)  # the tensors themselves, where a step put new ones
            _restore_optimizer(optimizer, state, groups)


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict, groups: list[dict]) -> None:
    optimizer.state.clear()
    optimizer.state.update(state)
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        for key in group.keys() - saved.keys() - {"params"}:
            del group[key]
        for key, (original, value) in saved.items():
            group[key] = original.copy_(value) if isinstance(original, Tensor) else value


def _check(min_lr: float, max_lr: float, num_steps: int, smoothing: float, divergence_factor: float) -> None:
    if not 0 < min_lr < max_lr < math.inf:
        raise InputError("no range to sweep", expected="0 < min_lr < max_lr", got=(min_lr, max_lr))
    check_whole("a sweep has two ends", least=2, num_steps=num_steps)
    if not 0 <= smoothing < 1:
        raise InputError("no moving mean keeps this share", expected="0 <= smoothing < 1", got=smoothing)
    if not divergence_factor > 1:
        raise InputError("every loss diverges", expected="divergence_factor > 1", got=divergence_factor)
