"""The operators of tensor parallelism: two pairs in which the backward pass of one is the forward pass of the
other, and the division with which sequence parallelism begins.

All take a tensor and the process group of the N ranks that share the work, and raise InputError on a rank
that is not in it, or where a tensor does not divide.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from coursekit.errors import InputError
from coursekit.parallel._process_group import require_process_group

Group = dist.ProcessGroup


class _CopyToRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return sum_over_ranks(grad, ctx.group), None


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        x = x.clone(memory_format=torch.contiguous_format)  # the collective works in place
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return copy_to_ranks(grad, ctx.group), None


class _GatherSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return _all_gather(x, group, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return scatter_sequence(grad, ctx.group, dim=ctx.dim), None, None


class _ScatterSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        _check_divides(x, group, dim)
        parts = [part.contiguous() for part in x.chunk(dist.get_world_size(group), dim)]
        total = torch.empty_like(parts[0])
        dist.reduce_scatter(total, parts, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return gather_sequence(grad, ctx.group, dim=ctx.dim), None, None


class _SplitSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group, dim: int) -> Tensor:
        ctx.group, ctx.dim = group, dim
        return take_part(x, group, dim=dim)

    @staticmethod
    @once_differentiable  # the collective would not be seen by a second backward pass
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _all_gather(grad, ctx.group, ctx.dim), None, None


def copy_to_ranks(x: Float[Tensor, ...], group: Group) -> Float[Tensor, ...]:
    """Return `x`; its gradient is the sum over the ranks of `group`. The paper's f.

    It stands where a tensor that all ranks hold enters matrices of which each holds a part: x reaches the
    loss through every part, so its gradient is a sum of as many terms. Left out, the forward pass is still
    right, and every gradient below is wrong.

    Source: Shoeybi et al. 2019, Megatron-LM, section 3, figure 3 (https://arxiv.org/abs/1909.08053).
    """
    require_process_group(group)
    return _CopyToRanks.apply(x, group)


def sum_over_ranks(x: Float[Tensor, ...], group: Group) -> Float[Tensor, ...]:
    """Return the sum of `x` over the ranks of `group`; the gradient passes as it is. The paper's g.

    It stands where the parts come together. What follows is computed by all ranks alike, so each of them
    already has the whole gradient of the sum: adding those up, as the transpose of a sum over *distinct*
    losses would, makes it N times too large.

    Source: Shoeybi et al. 2019, Megatron-LM, section 3, figure 3 (https://arxiv.org/abs/1909.08053).
    """
    require_process_group(group)
    return _SumOverRanks.apply(x, group)


def gather_sequence(x: Float[Tensor, ...], group: Group, *, dim: int = 1) -> Float[Tensor, ...]:
    """Return the ranks' parts joined along `dim`; the gradient is summed over ranks, and each keeps its part.

    With sequence parallelism it takes the place of `copy_to_ranks`; the paper calls it g.

    Args:
        x: this rank's part, of one size on all ranks.
        group: the ranks.
        dim: the sequence's.
    Source: Korthikanti et al. 2022, section 4.2.2, figure 5 (https://arxiv.org/abs/2205.05198).
    """
    require_process_group(group)
    return _GatherSequence.apply(x, group, dim)


def scatter_sequence(x: Float[Tensor, ...], group: Group, *, dim: int = 1) -> Float[Tensor, ...]:
    """Return this rank's part, along `dim`, of the sum over ranks; the gradient is gathered.

    With sequence parallelism it takes the place of `sum_over_ranks`; the paper calls it ḡ. An all-reduce is
    a reduce-scatter and an all-gather, so the pair sends the same bytes, while what stands between, norms
    and dropout, holds 1/N of the activations.

    Args:
        x: this rank's terms; its size in `dim` a multiple of N.
        group: the ranks.
        dim: the sequence's.
    Source: Korthikanti et al. 2022, section 4.2.2, figure 5 (https://arxiv.org/abs/2205.05198).
    """
    require_process_group(group)
    return _ScatterSequence.apply(x, group, dim)


def split_sequence(x: Float[Tensor, ...], group: Group, *, dim: int = 1) -> Float[Tensor, ...]:
    """Return this rank's part of `x` along `dim`; the gradient is gathered.

    It stands where a tensor that all ranks hold alike becomes parts: each rank then has the gradient of its
    own part alone, and what comes before, computed by all, needs that of every part.

    Args:
        x: the same on all ranks; its size in `dim` a multiple of N.
        group: the ranks.
        dim: the sequence's.
    Source: Korthikanti et al. 2022, section 4.2.2 (https://arxiv.org/abs/2205.05198).
    """
    require_process_group(group)
    return _SplitSequence.apply(x, group, dim)


def take_part(x: Float[Tensor, ...], group: Group, *, dim: int) -> Float[Tensor, ...]:
    """Return a copy of this rank's part of `x` along `dim`, of N equal ones.

    Raises: InputError if there are no N equal ones.
    """
    _check_divides(x, group, dim)
    return x.chunk(dist.get_world_size(group), dim)[dist.get_rank(group)].clone()


def _check_divides(x: Tensor, group: Group, dim: int) -> None:
    size = dist.get_world_size(group)
    if x.shape[dim] % size:
        raise InputError(
            "the tensor does not divide among the ranks",
            expected=f"a multiple of {size} in dim {dim}, as {x.shape[dim] + -x.shape[dim] % size} is",
            got=f"shape {tuple(x.shape)}",
        )


def _all_gather(x: Tensor, group: Group, dim: int) -> Tensor:
    """Return the parts of all ranks joined along `dim`."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x, group=group)
    return torch.cat(parts, dim)
