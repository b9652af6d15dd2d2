"""Muon's update rule to read; `make_optimizer("muon", ...)` gives torch's own."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .optimizers_naive import State, of_one_shape


@of_one_shape
def muon_naive(
    theta: Float[Tensor, "m n"],
    g: Float[Tensor, "m n"],
    *,
    state: State,
    lr: float,
    momentum: float = 0.95,
    weight_decay: float = 0.1,
    compute_dtype: torch.dtype = torch.bfloat16,
) -> Float[Tensor, "m n"]:
    """Return θ after a step of Muon: the momentum's singular values all become about 1, its directions stay.

        b ← μ b + (1 − μ) g,   O = orthogonalized((1 − μ) g + μ b),   θ ← θ − η λ θ − η √max(1, m/n) O

    Args:
        theta: θ, a matrix (m, n) of a hidden layer. Embeddings, heads, gains and biases go to AdamW.
        g: gradient of the loss, shape of θ.
        state: keeps b.
        lr: η.
        momentum: μ, with Nesterov's look ahead.
        weight_decay: λ, decoupled as in AdamW.
        compute_dtype: of the orthogonalization; bfloat16 is enough, since its values are only about 1.
    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/).
    """
    b = state["b"] = momentum * state.get("b", 0) + (1 - momentum) * g
    O = _orthogonalized((1 - momentum) * g + momentum * b, compute_dtype)  # noqa: E741
    return theta - lr * weight_decay * theta - lr * math.sqrt(max(1, len(g) / len(g.T))) * O


def _orthogonalized(
    G: Float[Tensor, "m n"], compute_dtype: torch.dtype, num_steps: int = 5
) -> Float[Tensor, "m n"]:
    """Return a matrix with G's singular vectors and singular values near 1.

    Newton-Schulz: X ← a X + (b A + c A²) X with A = X Xᵀ is the polynomial a s + b s³ + c s⁵ on each singular
    value s, and needs matrix products only. Those of at least 0.005 ‖G‖ end between 0.68 and 1.16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.to(compute_dtype)
    X = X.T if len(G) > len(G.T) else X  # A is then the smaller of the two squares
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(num_steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return (X.T if len(G) > len(G.T) else X).to(G.dtype)
