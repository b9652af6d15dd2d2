"""Rotary position embedding: queries and keys are turned by angles that grow with the position."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coursekit.errors import InputError, check_whole


def rotary_angles(
    positions: Int[Tensor, " t"],
    head_dim: int,
    *,
    theta: float = 10_000.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "t half"], Float[Tensor, "t half"]]:
    """Return cosine and sine of m θ_i, for every position m and pair of dimensions i.

    θ_i = theta^(-2 i / k) for i = 0 … k/2 - 1: the first pair turns by a radian a position, the last ones
    hardly at all.

    Args:
        positions: m, of the whole sequence, also where this process holds a part of it.
        head_dim: k, even.
        theta: base of the angles, above 0.
        dtype: float32 or float64. In bfloat16, with its 8 bits of precision, positions above 256 would
            fall together.
    Raises: InputError for an odd head_dim, a dtype of whole numbers, or a base of 0 or less.
    Source: Su et al. 2021, RoFormer, equation 15 (https://arxiv.org/abs/2104.09864).

    >>> cos, sin = rotary_angles(torch.tensor([0, 1]), 4)
    >>> sin
    tensor([[0.0000, 0.0000],
            [0.8415, 0.0100]])
    """
    check_whole("rope turns pairs of dimensions", head_dim=head_dim)
    if head_dim % 2:
        raise InputError("rope turns pairs of dimensions", expected="an even head_dim", got=head_dim)
    if not theta > 0:
        raise InputError("angles have no base", expected="theta > 0", got=theta)
    if not dtype.is_floating_point:
        raise InputError("no angle is a whole number", expected="float32 or float64", got=dtype)
    pairs = torch.arange(0, head_dim, 2, device=positions.device, dtype=dtype)
    angles = torch.outer(positions.to(dtype), theta ** (-pairs / head_dim))
    return angles.cos(), angles.sin()


def apply_rotary(
    x: Float[Tensor, "b h t k"], cos: Float[Tensor, "t half"], sin: Float[Tensor, "t half"]
) -> Float[Tensor, "b h t k"]:
    """Return queries or keys with each pair of dimensions (2i, 2i + 1) turned by its angle.

    The product of a query at m and a key at n then depends on m - n alone.

    The pairs are neighbours, as in the paper and in Meta's weights of Llama. Hugging Face's weights pair i
    with i + k/2: the same model with the rows of `q_proj` and `k_proj` in another order.

    Args:
        x: (b, h, t, k), any float dtype, which the result has as well.
        cos: of the angles, from `rotary_angles` for these t positions.
        sin: of the angles.
    Source: Su et al. 2021, RoFormer, equation 34 (https://arxiv.org/abs/2104.09864).

    >>> quarter = {"cos": torch.tensor([[0.0]]), "sin": torch.tensor([[1.0]])}  # 90 degrees
    >>> apply_rotary(torch.tensor([[[[1.0, 0.0]]]]), **quarter)
    tensor([[[[0., 1.]]]])
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).type_as(x)  # under autocast x is narrower than the angles


class Rotary:
    """Turns the queries and keys of all layers; made once a forward pass.

    An object and not a pair of tensors: FSDP's mixed precision would cast those to bfloat16 on their way
    into a block, and leaves objects alone.

    Args:
        positions: of the t tokens.
        head_dim: k.
        theta: as for `rotary_angles`.
        dtype: as for `rotary_angles`.
    """

    def __init__(
        self, positions: Int[Tensor, " t"], head_dim: int, *, theta: float, dtype: torch.dtype
    ) -> None:
        self.cos, self.sin = rotary_angles(positions, head_dim, theta=theta, dtype=dtype)

    def __call__(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Return `apply_rotary` of x and these angles."""
        return apply_rotary(x, self.cos, self.sin)
