"""Learning-rate schedules: functions of the step, without state, so a resumed run needs its step only."""

from __future__ import annotations

import math
import numbers
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from coursekit.errors import InputError, check_whole


@dataclass(frozen=True)
class WarmupConstant:
    """Multiplier that rises to 1 in `warmup_steps` steps and stays there.

        w(s) = (s + 1) / (W + 1) for s < W, and 1 from then on

    The first step doesn't waste its batch on a learning rate of 0, and the peak is reached at step W, once.
    This, like all schedules here, is a callable for `set_lr` or `torch.optim.lr_scheduler.LambdaLR`, whose
    state holds the numbers below.

    Args:
        warmup_steps: W, may be 0.
    Source: Goyal et al. 2017, section 2.2 (https://arxiv.org/abs/1706.02677), the gradual warm-up.

    >>> [WarmupConstant(warmup_steps=3)(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check_steps(warmup_steps=self.warmup_steps)

    def __call__(self, step: int) -> float:
        """Return the multiplier of the peak learning rate at `step`, from 0."""
        return _warmup(step, self.warmup_steps)


@dataclass(frozen=True)
class WarmupCosine:
    """Multiplier that rises to 1, falls along half a cosine to `min_ratio` at `total_steps`, and stays.

        c(s) = r + (1 − r) (1 + cos(π (s − W) / (T − W))) / 2 for W ≤ s ≤ T

    Args:
        total_steps: T, the number of steps of the run; its last step is T − 1, just above r.
        warmup_steps: W, see `WarmupConstant`.
        min_ratio: r = min_lr / max_lr, from 0 to 1; 0.1 in GPT-3 and Llama.
    Source: Loshchilov and Hutter 2017, equation 5, one period (https://arxiv.org/abs/1608.03983). torch's
        `CosineAnnealingLR` rises again beyond its `T_max`.

    >>> schedule = WarmupCosine(warmup_steps=1, total_steps=5)
    >>> [round(schedule(step), 3) for step in range(7)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    total_steps: int
    warmup_steps: int = 0
    _: KW_ONLY
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check_steps(warmup_steps=self.warmup_steps, total_steps=self.total_steps)
        _check_ratio(self.min_ratio)

    def __call__(self, step: int) -> float:
        """Return the multiplier of the peak learning rate at `step`, from 0."""
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        share = _share(step, self.warmup_steps, self.total_steps)
        return self.min_ratio + (1 - self.min_ratio) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class WarmupLinear:
    """Multiplier that rises to 1, falls on a line to `min_ratio` at `total_steps`, and stays.

        l(s) = 1 − (1 − r) (s − W) / (T − W) for W ≤ s ≤ T

    Args:
        total_steps: T, the number of steps of the run.
        warmup_steps: W, see `WarmupConstant`.
        min_ratio: r = min_lr / max_lr, from 0 to 1.
    Source: Devlin et al. 2019, appendix A.2 (https://arxiv.org/abs/1810.04805).

    >>> [WarmupLinear(warmup_steps=1, total_steps=5)(step) for step in range(7)]
    [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    total_steps: int
    warmup_steps: int = 0
    _: KW_ONLY
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check_steps(warmup_steps=self.warmup_steps, total_steps=self.total_steps)
        _check_ratio(self.min_ratio)

    def __call__(self, step: int) -> float:
        """Return the multiplier of the peak learning rate at `step`, from 0."""
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        return 1 - (1 - self.min_ratio) * _share(step, self.warmup_steps, self.total_steps)


@dataclass(frozen=True)
class WarmupExponential:
    """Multiplier that rises to 1, then keeps the share γ of itself at each step, down to `min_ratio`.

        e(s) = max(r, γ^(s − W)) for s ≥ W

    Args:
        gamma: γ, above 0, at most 1; a half-life of h steps is γ = 0.5^(1/h).
        warmup_steps: W, see `WarmupConstant`.
        min_ratio: r = min_lr / max_lr, from 0 to 1.
    Source: `torch.optim.lr_scheduler.ExponentialLR`, which has neither warm-up nor floor.

    >>> [WarmupExponential(gamma=0.5, min_ratio=0.2)(step) for step in range(4)]
    [1.0, 0.5, 0.25, 0.2]
    """

    gamma: float
    warmup_steps: int = 0
    _: KW_ONLY
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check_steps(warmup_steps=self.warmup_steps)
        _check_ratio(self.min_ratio)
        if not 0 < self.gamma <= 1:
            raise InputError("the decay is no decay", expected="0 < gamma <= 1", got=self.gamma)

    def __call__(self, step: int) -> float:
        """Return the multiplier of the peak learning rate at `step`, from 0."""
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        return max(self.min_ratio, self.gamma ** (step - self.warmup_steps))


@dataclass(frozen=True)
class WarmupStableDecay:
    """Multiplier that rises to 1, stays, and falls in the last `decay_steps` steps to `min_ratio` (WSD).

        d(s) = 1 − (1 − r) f((s − T + D) / D) for T − D ≤ s ≤ T, with f(x) = x or f(x) = √x

    The plateau doesn't know how long the run will be: it can be prolonged from any of its checkpoints.

    Args:
        total_steps: T, the number of steps of the run.
        decay_steps: D, at least 1; a tenth to a fifth of the run in the paper.
        warmup_steps: W, see `WarmupConstant`.
        min_ratio: r = min_lr / max_lr, from 0 to 1.
        shape: `"linear"`, or `"1-sqrt"`, which falls fast at first and ended lower in the paper.
    Source: Hägele et al. 2024, section 3 (https://arxiv.org/abs/2405.18392); Hu et al. 2024, MiniCPM, section
        4 (https://arxiv.org/abs/2404.06395).

    >>> schedule = WarmupStableDecay(total_steps=6, decay_steps=2, warmup_steps=1)
    >>> [schedule(step) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """

    total_steps: int
    decay_steps: int
    _: KW_ONLY
    warmup_steps: int = 0
    min_ratio: float = 0.0
    shape: Literal["linear", "1-sqrt"] = "linear"

    def __post_init__(self) -> None:
        check_whole("the decay has no steps", decay_steps=self.decay_steps)
        check_whole("a run without steps", total_steps=self.total_steps)
        if self.decay_steps > self.total_steps:
            expected = f"decay_steps <= total_steps = {self.total_steps}"
            raise InputError("the decay is longer than the run", expected=expected, got=self.decay_steps)
        if self.shape not in ("linear", "1-sqrt"):
            raise InputError("no such shape", expected="'linear' or '1-sqrt'", got=repr(self.shape))
        _check_steps(warmup_steps=self.warmup_steps, total_steps=self.total_steps - self.decay_steps + 1)
        _check_ratio(self.min_ratio)

    def __call__(self, step: int) -> float:
        """Return the multiplier of the peak learning rate at `step`, from 0."""
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        share = _share(step, self.total_steps - self.decay_steps, self.total_steps)
        return 1 - (1 - self.min_ratio) * (math.sqrt(share) if self.shape == "1-sqrt" else share)


def set_lr(optimizer: torch.optim.Optimizer, multiplier: float) -> list[float]:
    """Set every group's `lr` to `multiplier` times its peak; return the learning rates, one a group.

    The peak is `initial_lr`, as torch's schedulers call it: what `lr` was when this, or a scheduler, first
    saw the group. It is saved with the optimizer, so a resumed run goes on right, and the ratios between
    groups stay. An `lr` that is a tensor (`capturable=True`, CUDA graphs) is filled and stays the same
    tensor.

    Args:
        optimizer: any torch optimizer.
        multiplier: of the peak, as a schedule returns it: `set_lr(optimizer, schedule(step))`, before
            `step()`.
    Raises: InputError if the multiplier is negative, not finite or no number.

    >>> weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    >>> optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], lr=1.0)
    >>> set_lr(optimizer, 0.5)
    [0.5, 0.25]
    """
    if not (isinstance(multiplier, (numbers.Real, Tensor)) and 0 <= multiplier < math.inf):
        raise InputError(
            "no learning rate comes of this",
            expected="a finite multiplier >= 0",
            got=repr(multiplier),
            fix="call the schedule: schedule(step)" if callable(multiplier) else "",
        )
    lrs = []
    for group in optimizer.param_groups:
        lr = group["lr"]
        if isinstance(lr, Tensor):
            # A copy: the tensor itself is filled below.
            peak = group.setdefault("initial_lr", lr.detach().clone())
            lr.fill_(peak * multiplier)
        else:
            peak = group.setdefault("initial_lr", lr)
            group["lr"] = peak * multiplier
        lrs.append(float(peak) * multiplier)
    return lrs


def _warmup(step: int, warmup_steps: int) -> float:
    if step < 0:
        raise InputError("steps are counted from 0", expected="step >= 0", got=step)
    return min(1.0, (step + 1) / (warmup_steps + 1))


def _share(step: int, first: int, last: int) -> float:
    """Return how much of the way from step `first` to step `last` is done, from 0 to 1."""
    if step < 0:
        raise InputError("steps are counted from 0", expected="step >= 0", got=step)
    return min(1.0, max(0.0, (step - first) / (last - first)))


def _check_steps(*, warmup_steps: int, total_steps: int | None = None) -> None:
    check_whole("warm-up is counted in steps", least=0, warmup_steps=warmup_steps)
    if total_steps is not None:
        check_whole("a run without steps", total_steps=total_steps)
    if total_steps is not None and not warmup_steps < total_steps:
        raise InputError(
            "no step is left after warm-up", expected=f"warmup_steps < {total_steps}", got=warmup_steps
        )


def _check_ratio(min_ratio: float) -> None:
    if not (isinstance(min_ratio, numbers.Real) and 0 <= min_ratio <= 1):
        expected = "0 <= min_ratio <= 1"
        raise InputError("the floor is outside the range", expected=expected, got=repr(min_ratio))
