"""LAMB: Adam's direction at a length that follows each layer's weights, for very large batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coursekit.errors import InputError

from .optimizers_naive import State, adam_direction_naive, of_one_shape


@of_one_shape
def lamb_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Tensor:
    """Return θ after a step of LAMB: AdamW's direction, made as long as η times the norm of θ.

        u = m̂ / (√v̂ + ε) + λ θ,   θ ← θ − η (‖θ‖ / ‖u‖) u

    Args:
        theta: θ, any shape: the parameters of one layer's tensor, whose norm counts as a whole.
        g: gradient of the loss, shape of θ.
        state: keeps t, m and v.
        lr: η, the length of the step as a share of ‖θ‖, whatever the batch.
        betas: β₁ and β₂, the shares that the means of g and of g² keep.
        eps: ε.
        weight_decay: λ.
    Source: You et al. 2020, algorithm 2 with φ(z) = z (https://arxiv.org/abs/1904.00962). Where ‖θ‖ or ‖u‖ is
        zero the ratio is 1, as in the authors' code: a bias that begins at zero would stay there for ever.

    >>> lamb_naive(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]), state={}, lr=0.1, weight_decay=0.0)
    tensor([2.5000, 4.0000])
    """
    u = adam_direction_naive(g, state, betas, eps) + weight_decay * theta
    ratio = theta.norm() / u.norm() if theta.norm() > 0 and u.norm() > 0 else 1.0
    return theta - lr * ratio * u


class LAMB(torch.optim.Optimizer):
    """Steps every parameter as `lamb_naive` does, in place and without waiting for the device.

    Each tensor is a layer of its own. The norms of a sharded tensor (`DTensor`) are of the whole, so FSDP2
    and tensor parallelism change nothing. Use no weight decay for biases and norms (`parameter_groups`).

    Args:
        params: parameters or groups of them, as every torch optimizer takes them.
        lr: η, the length of a step as a share of the norm of the parameter.
        betas: β₁ and β₂, the shares that the means of g and of g² keep.
        eps: ε, added to the root of the second.
        weight_decay: λ.
    Raises: InputError for a setting out of its range.
    Source: You et al. 2020, algorithm 2 with φ(z) = z (https://arxiv.org/abs/1904.00962).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

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
            # A tensor on the host, as torch's optimizers keep it: checkpoints save it, no one waits to read
            # it.
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(theta), torch.zeros_like(theta)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        t = state["step"].item()
        m = state["exp_avg"].lerp_(g, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
        u = (m / (1 - beta1**t)).div_((v / (1 - beta2**t)).sqrt_().add_(group["eps"]))
        u.add_(theta, alpha=group["weight_decay"])
        theta_norm, u_norm = torch.linalg.vector_norm(theta), torch.linalg.vector_norm(u)
        # torch.where, since an `if` would wait for the device. A zero u_norm divides to a value not chosen.
        ratio = torch.where((theta_norm > 0) & (u_norm > 0), theta_norm / u_norm, 1.0)
        theta.sub_(u.mul_(ratio), alpha=group["lr"])


def check_betas(betas: tuple[float, float]) -> None:
    """Raise InputError unless both shares are at least 0 and below 1."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError("no moving mean has these shares", expected="two betas, 0 <= beta < 1", got=betas)


def check_not_negative(**settings: float) -> None:
    """Raise InputError for a setting below zero or NaN."""
    for name, value in settings.items():
        if not value >= 0:
            raise InputError(f"{name} is out of range", expected=f"{name} >= 0", got=value)
