"""Update rules to read: one function a rule, one tensor at a time, in the symbols of its paper.

Each takes θ (the parameter), g (its gradient) and `state`, a dict that is empty before the first step and
kept by the caller, one a parameter. Each returns the new θ and changes `state`; θ and g stay as they are. A
training loop uses `make_optimizer`, which is tested equal to these. LAMB, Lion and Muon stand in modules of
their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from coursekit.errors import InputError

State = dict[str, Tensor | int]


def of_one_shape(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the update rule with an InputError where θ and g have two shapes.

    Each would be stretched to fit the other without a word, and θ would come out in a shape it never had.
    """

    @functools.wraps(rule)
    def checked(theta: Tensor, g: Tensor, **settings: object) -> Tensor:
        if g.shape != theta.shape:
            expected, got = f"shape {tuple(theta.shape)}, the parameter's", tuple(g.shape)
            raise InputError("a gradient of another shape", expected=expected, got=got)
        return rule(theta, g, **settings)

    return checked


@of_one_shape
def sgd_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Tensor:
    """Return θ after a step of gradient descent: plain, with momentum μ, or with Nesterov's look ahead.

        g ← g + λ θ,   b ← μ b + g,   θ ← θ − η b   (Nesterov: θ − η (g + μ b))

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ.
        state: keeps b, the sum of decayed gradients.
        lr: η.
        momentum: μ, from 0 (plain) to below 1. After many equal gradients a step is 1/(1 − μ) times longer.
        nesterov: use the gradient and the momentum that the next step will have.
        weight_decay: λ, here the same as a penalty λ/2 ‖θ‖² in the loss.
    Source: Sutskever et al. 2013, section 2 (https://proceedings.mlr.press/v28/sutskever13.html), with b in
        units of the gradient, as torch has it, and not of the step: η then acts on the whole past.

    >>> sgd_naive(torch.tensor(1.0), torch.tensor(2.0), state={}, lr=0.1)
    tensor(0.8000)
    """
    g = g + weight_decay * theta
    b = state["b"] = momentum * state.get("b", 0) + g
    return theta - lr * (g + momentum * b if nesterov else b)


@of_one_shape
def adagrad_naive(
    theta: Tensor, g: Tensor, *, state: State, lr: float, eps: float = 1e-10, weight_decay: float = 0.0
) -> Tensor:
    """Return θ after a step of Adagrad: each element divides by the root of all its squared gradients so far.

        G ← G + g²,   θ ← θ − η g / (√G + ε)

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ; λ θ is added to it first.
        state: keeps G. It only grows, so the steps only shrink: right for rare features, an end for long
            runs.
        lr: η.
        eps: ε.
        weight_decay: λ.
    Source: Duchi et al. 2011, figure 1, the diagonal form (https://jmlr.org/papers/v12/duchi11a.html).

    >>> adagrad_naive(torch.tensor(1.0), torch.tensor(5.0), state={}, lr=0.1)  # the first step has length η
    tensor(0.9000)
    """
    g = g + weight_decay * theta
    G = state["G"] = state.get("G", 0) + g**2
    return theta - lr * g / (G.sqrt() + eps)


@of_one_shape
def adadelta_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Tensor:
    """Return θ after a step of Adadelta, which takes the units of its step from the steps before.

        E[g²] ← ρ E[g²] + (1 − ρ) g²,   Δ = √(E[Δ²] + ε) / √(E[g²] + ε) · g,
        E[Δ²] ← ρ E[Δ²] + (1 − ρ) Δ²,   θ ← θ − η Δ

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ; λ θ is added to it first.
        state: keeps E[g²] and E[Δ²].
        lr: η; the paper has none, which is 1.
        rho: ρ, the share that a mean keeps.
        eps: ε; it also sets the first step, since E[Δ²] begins at zero.
        weight_decay: λ.
    Source: Zeiler 2012, algorithm 1 (https://arxiv.org/abs/1212.5701).
    """
    g = g + weight_decay * theta
    Eg2 = state["Eg2"] = rho * state.get("Eg2", 0) + (1 - rho) * g**2
    Ed2 = state.get("Ed2", torch.zeros_like(g))
    delta = (Ed2 + eps).sqrt() / (Eg2 + eps).sqrt() * g
    state["Ed2"] = rho * Ed2 + (1 - rho) * delta**2
    return theta - lr * delta


@of_one_shape
def rmsprop_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Tensor:
    """Return θ after a step of RMSprop: Adagrad that forgets, with a moving mean of the squared gradients.

        v ← α v + (1 − α) g²,   θ ← θ − η g / (√v + ε)

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ; λ θ is added to it first.
        state: keeps v. It begins at zero and is not corrected: the first step is 1/√(1 − α) times η long.
        lr: η.
        alpha: α, the share that the mean keeps.
        eps: ε.
        weight_decay: λ.
    Source: Tieleman and Hinton 2012, lecture 6e, slide 29
        (https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf).
    """
    g = g + weight_decay * theta
    v = state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g**2
    return theta - lr * g / (v.sqrt() + eps)


@of_one_shape
def adam_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Tensor:
    """Return θ after a step of Adam; weight decay goes into the gradient, and so through the division.

        g ← g + λ θ,   θ ← θ − η m̂ / (√v̂ + ε)

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ.
        state: keeps t, m and v.
        lr: η.
        betas: β₁ and β₂, the shares that the means of g and of g² keep.
        eps: ε.
        weight_decay: λ. An element with large gradients is decayed less: see `adamw_naive`.
    Source: Kingma and Ba 2015, algorithm 1 (https://arxiv.org/abs/1412.6980).

    >>> adam_naive(torch.tensor(1.0), torch.tensor(-5.0), state={}, lr=0.1)  # the first step has length η
    tensor(1.1000)
    """
    g = g + weight_decay * theta
    return theta - lr * adam_direction_naive(g, state, betas, eps)


@of_one_shape
def adamw_naive(
    theta: Tensor,
    g: Tensor,
    *,
    state: State,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Tensor:
    """Return θ after a step of AdamW: Adam, and beside it every element shrinks by the same share η λ.

        θ ← θ − η λ θ − η m̂ / (√v̂ + ε)

    Args:
        theta: θ, any shape.
        g: gradient of the loss, shape of θ.
        state: keeps t, m and v.
        lr: η; as in torch it multiplies the decay as well, so a schedule lowers both.
        betas: β₁ and β₂, the shares that the means of g and of g² keep.
        eps: ε.
        weight_decay: λ.
    Source: Loshchilov and Hutter 2019, algorithm 2 (https://arxiv.org/abs/1711.05101), whose schedule η_t is
        here within `lr`.

    >>> adamw_naive(torch.tensor(1.0), torch.tensor(0.0), state={}, lr=0.1, weight_decay=0.5)
    tensor(0.9500)
    """
    return theta - lr * weight_decay * theta - lr * adam_direction_naive(g, state, betas, eps)


def adam_direction_naive(g: Tensor, state: State, betas: tuple[float, float], eps: float) -> Tensor:
    """Return m̂ / (√v̂ + ε), and step t, m and v on."""
    beta1, beta2 = betas
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
    # m and v begin at zero: without the correction the first step is (1 − β₁)/√(1 − β₂) = 3.2 times too long.
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return m_hat / (v_hat.sqrt() + eps)
