"""Norms: torch's own to use, and root-mean-square normalisation written out."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from coursekit.models.config import GPTConfig


def make_norm(config: GPTConfig) -> nn.Module:
    """Return the norm over the last dim that `config` asks for."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def rms_norm_naive(
    x: Float[Tensor, "... d"], weight: Float[Tensor, " d"], *, eps: float = 1e-5
) -> Float[Tensor, "... d"]:
    """Return x · weight / √(mean(x²) + eps), the mean over the last dim.

    What `torch.nn.RMSNorm` computes: a layer norm that neither subtracts the mean nor adds a bias.

    Args:
        x: hidden states, any shape; the norm is over the last dim.
        weight: g, the gain of each dimension.
        eps: ε, inside the root.
    Source: Zhang and Sennrich 2019, equation 4 (https://arxiv.org/abs/1910.07467).

    >>> import torch
    >>> rms_norm_naive(torch.tensor([3.0, 4.0]), torch.ones(2), eps=0.0) * 12.5**0.5
    tensor([3., 4.])
    """
    return x * weight / (x.square().mean(-1, keepdim=True) + eps).sqrt()
