"""Lion: steps of one length for every element, from the sign of a moving mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .lamb import check_betas, check_not_negative
from .optimizers_naive import State, of_one_shape


@of_one_shape
def lion_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> Tensor:
    """Return θ after a step of Lion: every element moves by η, only the sign of a mean is used.

        c = β₁ m + (1 − β₁) g,   θ ← θ − η (sign(c) + λ θ),   m ← β₂ m + (1 − β₂) g

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ.
        state: keeps m alone, half of Adam's memory.
        lr: η; the paper's runs used 3 to 10 times less than with AdamW, and λ as much larger.
        betas: β₁ for the step, β₂ for what is kept.
        weight_decay: λ.
    Source: Chen et al. 2023, algorithm 2 (https://arxiv.org/abs/2302.06675).

    >>> lion_naive(torch.tensor([1.0, 1.0]), torch.tensor([-0.01, 7.0]), state={}, lr=0.1)
    tensor([1.1000, 0.9000])
    """
    beta1, beta2 = betas
    m = state.get("m", 0)
    c = beta1 * m + (1 - beta1) * g
    state["m"] = beta2 * m + (1 - beta2) * g
    return theta - lr * (c.sign() + weight_decay * theta)


class Lion(torch.optim.Optimizer):
    """Steps every parameter as `lion_naive` does, in place.

    Args:
        params: parameters or groups of them, as every torch optimizer takes them.
        lr: η, by which every element moves.
        betas: β₁ for the step, β₂ for what is kept.
        weight_decay: λ, decoupled as in AdamW.
    Raises: InputError for a setting out of its range.
    Source: Chen et al. 2023, algorithm 2 (https://arxiv.org/abs/2302.06675).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative(lr=lr, weight_decay=weight_decay)
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for theta in group["params"]:
                if theta.grad is not None:
                    self._update(theta, theta.grad, group)
        return loss

    def _update(self, theta: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state = self.state[theta]
        if not state:
            state["exp_avg"] = torch.zeros_like(theta)
        beta1, beta2 = group["betas"]
        m = state["exp_avg"]
        theta.mul_(1 - group["lr"] * group["weight_decay"])
        theta.sub_(m.lerp(g, 1 - beta1).sign_(), alpha=group["lr"])
        m.lerp_(g, 1 - beta2)
