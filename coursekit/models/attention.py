"""Causal self-attention: written out, by torch's fused kernels, and as the layer of a GPT."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coursekit.errors import InputError
from coursekit.models.config import GPTConfig
from coursekit.models.kv_cache import LayerCache
from coursekit.models.latent import LatentConfig
from coursekit.models.rotary import Rotary


def naive_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    *,
    causal: bool = True,
) -> Float[Tensor, "b h t k"]:
    """Return softmax(Q Kᵀ / √k + mask) V, head by head.

    The version to read: it holds the (t, s) matrix of all weights, which `causal_attention` never does. If
    there are more keys than queries, the queries are the last ones: the mask is aligned with the lower
    right corner.

    Args:
        q: Q, queries of h heads.
        k: K, keys of g heads, where g divides h: h / g neighbouring query heads share one.
        v: V, values of g heads.
        causal: whether a query sees only the keys up to its own position.
    Raises: InputError if it is causal and there are more queries than keys.
    Source: Vaswani et al. 2017, equation 1 (https://arxiv.org/abs/1706.03762); Ainslie et al. 2023
        (https://arxiv.org/abs/2305.13245) for shared heads.

    >>> x = torch.tensor([[[[1.0], [2.0]]]])
    >>> naive_attention(x, x, x)[0, 0, 0]  # the first position sees itself alone
    tensor([1.])
    """
    num_sharing = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(num_sharing, dim=1), v.repeat_interleave(num_sharing, dim=1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(~_causal_mask(q, k), -torch.inf)
    return scores.softmax(-1) @ v


def causal_attention(
    q: Float[Tensor, "b h t k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    *,
    dropout_p: float = 0.0,
) -> Float[Tensor, "b h t k"]:
    """Return what `naive_attention` does, from `scaled_dot_product_attention`.

    Args:
        q: queries (b, h, t, k): the last t of the s positions.
        k: keys (b, g, s, k), where g divides h.
        v: values (b, g, s, k).
        dropout_p: probability that a weight is dropped.
    Raises: InputError if there are more queries than keys.
    Source: Dao 2023, FlashAttention-2 (https://arxiv.org/abs/2307.08691).
    """
    # torch aligns is_causal with the upper left corner: with cached keys, every query would see too few.
    is_square = q.shape[2] == k.shape[2]
    mask = None if is_square or q.shape[2] == 1 else _causal_mask(q, k)
    shares_heads = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=is_square, enable_gqa=shares_heads
    )


def _causal_mask(q: Tensor, k: Tensor) -> Tensor:
    num_queries, num_keys = q.shape[2], k.shape[2]
    if num_queries > num_keys:  # the first ones would see nothing: NaN, or zeros
        raise InputError("queries without keys", expected=f"at least {num_queries} keys", got=num_keys)
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=q.device).tril(num_keys - num_queries)


class Attention(nn.Module):
    """Causal self-attention with h query heads and n_kv_heads key and value heads.

    The number of heads is read from the projections' outputs, so that a shard of the projections computes
    a shard of the heads.

    Attributes:
        attend: the function from q (b, h, t, k), k, v (b, g, t, k) and `dropout_p` to (b, h, t, k); replace
            it to compute attention in another way, as context parallelism does.
    """

    attend: Callable[..., Tensor]

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if isinstance(config, LatentConfig):
            raise InputError(
                "latent attention is planned, not built", expected="a GPTConfig", got="a LatentConfig"
            )
        self.head_dim = config.head_dim
        kv_width = config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.k_proj = nn.Linear(config.d_model, kv_width, bias=config.bias)
        self.v_proj = nn.Linear(config.d_model, kv_width, bias=config.bias)
        self.o_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.attend = causal_attention

    def forward(
        self, x: Float[Tensor, "b t d"], *, rotary: Rotary | None = None, cache: LayerCache | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return what attention adds to the hidden states.

        Args:
            x: normalised hidden states.
            rotary: turns queries and keys by the positions of x; None turns nothing.
            cache: keys and values of what came before x; those of x are appended.
        """
        q, k, v = (self._split_heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        if cache is not None:
            k, v = cache.append(k, v)
        y = self.attend(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)
        return self.dropout(self.o_proj(y.transpose(1, 2).flatten(2)))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
