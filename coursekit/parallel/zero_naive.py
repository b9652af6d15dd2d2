"""ZeRO to read: an optimizer whose state is shared out (stage 1), a layer whose weight is (stage 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from coursekit.errors import InputError

from ._process_group import require_process_group

Group = dist.ProcessGroup | None


class ZeroOptimizerNaive:
    """An optimizer of which every rank holds 1/N of the state, and updates 1/N of the parameters (ZeRO-1).

    All parameters are laid one after the other into one vector, and the vector is cut into N equal shards.
    A step is: the mean of the gradients to the shard's owner (reduce-scatter), the owner's update of its
    shard, and the new shards to all (all-gather). That sends what plain data parallelism does, whose
    all-reduce is a reduce-scatter and an all-gather too.

    Right for optimizers that treat each element by itself (SGD, Adam, AdamW), not for LAMB, which needs norms
    of whole layers.

    Args:
        parameters: the same on every rank, of one dtype.
        make_optimizer: makes the optimizer of a list with this rank's shard, a vector, as
            `lambda shard: torch.optim.AdamW(shard, lr=1e-3)`.
        group: the data-parallel ranks; None is all.
    Raises: InputError if there is no parameter, or dtypes are mixed.
    Source: Rajbhandari et al. 2020, ZeRO, sections 5.1 and 7.2.1 (https://arxiv.org/abs/1910.02054).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        *,
        group: Group = None,
    ) -> None:
        require_process_group(group)
        self.parameters, self.group = list(parameters), group
        dtypes = {parameter.dtype for parameter in self.parameters}
        if len(dtypes) != 1:
            raise InputError("one vector needs one dtype", expected="parameters of one dtype", got=dtypes)
        shards = self._shards([parameter.detach() for parameter in self.parameters])
        self.shard = nn.Parameter(shards[dist.get_rank(group)].clone())
        self.optimizer = make_optimizer([self.shard])

    def step(self) -> None:
        """Update every parameter by the mean of the ranks' gradients; a missing gradient counts as zero."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self.shard.grad = torch.empty_like(self.shard)
        dist.reduce_scatter(self.shard.grad, self._shards(gradients), group=self.group)  # the sum, so far
        self.shard.grad /= dist.get_world_size(self.group)
        self.optimizer.step()
        shards = [torch.empty_like(self.shard.data) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(shards, self.shard.data, group=self.group)
        updated = torch.cat(shards).split(
            [parameter.numel() for parameter in self.parameters] + [self._padding]
        )
        for parameter, values in zip(self.parameters, updated, strict=False):
            parameter.data.copy_(values.view_as(parameter))

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for parameter in self.parameters:
            parameter.grad = None

    @property
    def _padding(self) -> int:
        """Zeros after the last parameter: they make the shards equal, as the collectives need them."""
        return -sum(parameter.numel() for parameter in self.parameters) % dist.get_world_size(self.group)

    def _shards(self, tensors: list[Tensor]) -> list[Tensor]:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        return list(nn.functional.pad(flat, (0, self._padding)).chunk(dist.get_world_size(self.group)))


class ShardedLinearNaive(nn.Module):
    """A linear layer of which every rank holds 1/N of the weight, and gathers it to use it (ZeRO-3).

    Forward: all-gather W, y = x Wᵀ + b, let W go. Backward: all-gather W again, ∂x = ∂y W, ∂W = ∂yᵀ x, and
    reduce-scatter of ∂W, of which each rank keeps the mean of its own rows. The bias is small and stays
    whole; average its gradient as `average_gradients` does.

    Args:
        linear: the whole layer, the same on every rank; its rows are copied from.
        group: the data-parallel ranks; None is all.
    Raises: InputError if the rows (`out_features`) do not divide among the ranks.
    Source: Rajbhandari et al. 2020, ZeRO, sections 5.3 and 7.2.2 (https://arxiv.org/abs/1910.02054).
    """

    def __init__(self, linear: nn.Linear, *, group: Group = None) -> None:
        super().__init__()
        require_process_group(group)
        rank, world_size = dist.get_rank(group), dist.get_world_size(group)
        if linear.out_features % world_size:
            above = linear.out_features + -linear.out_features % world_size
            raise InputError(
                "the weight's rows do not divide among the ranks",
                expected=f"out_features a multiple of {world_size}, as {above} is",
                got=linear.out_features,
            )
        self.group = group
        self.weight_shard = nn.Parameter(linear.weight.detach().chunk(world_size)[rank].clone())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b for x (..., in_features)."""
        y = _ShardedMatmul.apply(x, self.weight_shard, self.group)
        return y if self.bias is None else y + self.bias


class _ShardedMatmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_shard: Tensor, group: Group) -> Tensor:
        ctx.group = group
        ctx.save_for_backward(x, weight_shard)  # not the whole weight, which would stay till backward
        return x @ _gather_rows(weight_shard, group).T

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_shard = ctx.saved_tensors
        grad_x = grad_y @ _gather_rows(weight_shard, ctx.group)
        grad_weight = grad_y.flatten(0, -2).T @ x.flatten(0, -2)
        world_size = dist.get_world_size(ctx.group)
        grad_shard = torch.empty_like(weight_shard)
        dist.reduce_scatter(grad_shard, list(grad_weight.chunk(world_size)), group=ctx.group)
        return grad_x, grad_shard / world_size, None  # the mean over ranks, as their losses are means


def _gather_rows(shard: Tensor, group: Group) -> Tensor:
    shards = [torch.empty_like(shard) for _ in range(dist.get_world_size(group))]
    dist.all_gather(shards, shard.detach(), group=group)
    return torch.cat(shards)
