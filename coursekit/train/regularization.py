"""Regularization: penalties on the weights, smoothed labels, and stopping when nothing improves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole

from .gradient_accumulation import IGNORE_INDEX


def l1_penalty(parameters: Iterable[Tensor], weight: float) -> Float[Tensor, ""]:
    """Return λ ‖θ‖₁, to be added to the loss; its gradient λ sign(θ) pushes small weights to zero.

    With plain gradient descent weights then hover around zero within a step of it and seldom are exactly
    zero.

    Args:
        parameters: θ, those to be penalized: as a rule the first group of `parameter_groups`.
        weight: λ. Add the penalty once a step and not once a micro-batch.
    Raises: InputError if λ is negative or there are no parameters.
    Source: Tibshirani 1996, equation 1 in its penalty form
        (https://doi.org/10.1111/j.2517-6161.1996.tb02080.x).

    >>> l1_penalty([torch.tensor([1.0, -2.0])], 0.5)
    tensor(1.5000)
    """
    return weight * _sum(parameters, weight, lambda theta: theta.abs().sum())


def l2_penalty(parameters: Iterable[Tensor], weight: float) -> Float[Tensor, ""]:
    """Return λ/2 Σ θ², to be added to the loss; its gradient λ θ shrinks weights in proportion.

    That gradient is what `weight_decay=λ` adds in `torch.optim.SGD` and `Adam`. AdamW's decay is another
    thing: it doesn't pass through the division by √v̂, so no loss has it as its gradient.

    Args:
        parameters: θ, those to be penalized: as a rule the first group of `parameter_groups`.
        weight: λ. Add the penalty once a step and not once a micro-batch.
    Raises: InputError if λ is negative or there are no parameters.
    Source: Loshchilov and Hutter 2019, section 2 (https://arxiv.org/abs/1711.05101).

    >>> l2_penalty([torch.tensor([1.0, -2.0])], 0.5)
    tensor(1.2500)
    """
    return weight / 2 * _sum(parameters, weight, lambda theta: theta.square().sum())


def smoothed_cross_entropy_naive(
    logits: Float[Tensor, "n v"], labels: Int[Tensor, " n"], *, label_smoothing: float
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy in nats against labels that give a share ε to all classes alike.

        q(k) = (1 − ε) [k = y] + ε / V,   loss = −Σ_k q(k) log p(k), averaged over the valid labels

    The version to read; `torch.nn.functional.cross_entropy(..., label_smoothing=ε)` is the one to use.

    Args:
        logits: unnormalized log p, of V classes.
        labels: y; those equal to `IGNORE_INDEX` count in neither sum nor mean. None valid gives NaN, as in
            torch.
        label_smoothing: ε, from 0 to 1.
    Raises: InputError if ε is out of range, or a label is negative and not `IGNORE_INDEX`.
    Source: Szegedy et al. 2016, section 7 (https://arxiv.org/abs/1512.00567), with their u(k) = 1/V.

    >>> smoothed_cross_entropy_naive(torch.zeros(1, 2), torch.tensor([0]), label_smoothing=0.1)  # log 2
    tensor(0.6931)
    """
    if not 0 <= label_smoothing <= 1:
        raise InputError(
            "no distribution comes of this", expected="label_smoothing in [0, 1]", got=label_smoothing
        )
    is_valid = labels != IGNORE_INDEX
    if (labels[is_valid] < 0).any():  # an index from the end, in the line below
        raise InputError("no such class", expected=f"labels >= 0, or {IGNORE_INDEX}", got=labels.min().item())
    log_p = logits[is_valid].log_softmax(dim=-1)
    q = torch.full_like(log_p, label_smoothing / logits.shape[-1])
    q[torch.arange(len(q)), labels[is_valid]] += 1 - label_smoothing
    return -(q * log_p).sum() / is_valid.sum()


@dataclass
class EarlyStopping:
    """Remembers the best value of a metric and says when it hasn't improved `patience` times in a row.

    An improvement is a value better than the best by more than `min_delta`. NaN never is one, nor an infinite
    loss; a run that gives nothing else is stopped with `best_step` None.

    Args:
        patience: evaluations without improvement after which to stop, at least 1.
        min_delta: what counts as an improvement, in the metric's units, at least 0.
        mode: `"min"` for a loss, `"max"` for an accuracy.

    Attributes:
        best: best value so far, None before the first.
        best_step: step that it was measured at: the checkpoint to keep.
        num_bad: evaluations since then.

    >>> stopping = EarlyStopping(patience=2)
    >>> [stopping.update(loss, step) for step, loss in enumerate([3.0, 2.0, 2.5, 2.1])]
    [False, False, False, True]
    >>> stopping.best, stopping.best_step
    (2.0, 1)
    """

    patience: int
    min_delta: float = 0.0
    _: KW_ONLY
    mode: Literal["min", "max"] = "min"
    best: float | None = field(default=None, init=False)
    best_step: int | None = field(default=None, init=False)
    num_bad: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_whole("it would stop at once", patience=self.patience)
        if not self.min_delta >= 0:
            raise InputError("worse is no improvement", expected="min_delta >= 0", got=self.min_delta)
        if self.mode not in ("min", "max"):
            raise InputError("no such mode", expected="'min' or 'max'", got=repr(self.mode))

    def update(self, value: float | Tensor, step: int) -> bool:
        """Take the metric at `step` and return whether to stop.

        Every rank must come to the same answer: give them the same value, averaged over ranks.
        """
        value = value.item() if isinstance(value, Tensor) else value
        if self._improves(value):
            self.best, self.best_step, self.num_bad = value, step, 0
        else:
            self.num_bad += 1
        return self.num_bad >= self.patience

    def _improves(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if math.isnan(value) or value == -sign * math.inf:
            return False
        return self.best is None or sign * (value - self.best) > self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, for a checkpoint; the settings are the code's."""
        return {"best": self.best, "best_step": self.best_step, "num_bad": self.num_bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.best, self.best_step, self.num_bad = state["best"], state["best_step"], state["num_bad"]


def _sum(parameters: Iterable[Tensor], weight: float, measure: Callable[[Tensor], Tensor]) -> Tensor:
    if not weight >= 0:
        raise InputError("a penalty rewards nothing", expected="weight >= 0", got=weight)
    if isinstance(parameters, nn.Module):
        raise InputError(
            "a model is no list of parameters",
            got=type(parameters).__name__,
            fix="give model.parameters(), or parameter_groups(...)[0]['params']",
        )
    parts = [measure(parameter) for parameter in parameters]
    if not parts:
        raise InputError("nothing to penalize", expected="at least one parameter", got=0)
    return torch.stack(parts).sum()
