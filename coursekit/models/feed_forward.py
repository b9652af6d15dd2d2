"""The feed-forward layer of a block: each position by itself, wide inside."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coursekit.models.config import GPTConfig


class FeedForward(nn.Module):
    """down(gelu(up(x))), or with swiglu down(silu(gate(x)) · up(x)).

    Source: Hendrycks and Gimpel 2016, section 2, the approximation by tanh
        (https://arxiv.org/abs/1606.08415); Shazeer 2020, equation 6 (https://arxiv.org/abs/2002.05202).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if config.activation == "swiglu":
            self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = config.activation

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Return what the layer adds to the hidden states."""
        if self.activation == "swiglu":
            inside = F.silu(self.gate_proj(x)) * self.up_proj(x)
        else:
            inside = F.gelu(self.up_proj(x), approximate="tanh")
        return self.dropout(self.down_proj(inside))
