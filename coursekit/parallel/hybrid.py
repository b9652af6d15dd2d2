"""What is needed where a model is divided in several ways at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

Group = dist.ProcessGroup


@torch.no_grad()
def local_parts(model: nn.Module) -> nn.ParameterList:
    """Return this rank's parts of the parameters of `model` as plain tensors, in the memory of the model's.

    Collectives refuse DTensors, since they cannot know what to send. Where ranks hold the *same* part, as
    data-parallel copies of a tensor-parallel model do, that part is a tensor like any other:

        average_gradients(local_parts(model), mesh["dp"].get_group())

    Gradients are shared as well; a parameter that has none gets zeros, on the model too. Call it after
    every backward pass, which may replace them.

    Args:
        model: with DTensors and plain parameters in any mixture.
    """
    parts = nn.ParameterList()
    for parameter in model.parameters():
        part = nn.Parameter(_local(parameter.detach()), requires_grad=parameter.requires_grad)
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            part.grad = _local(parameter.grad)
        parts.append(part)
    return parts


@torch.no_grad()
def clip_grad_norm_of_stages(parameters: Iterable[Tensor], max_norm: float, *, group: Group) -> Tensor:
    """Scale the gradients of all pipeline stages so that their norm is `max_norm` at most; return it.

    torch's `clip_grad_norm_` sees the parameters of this rank's stages alone: each rank would scale by a
    factor of its own, and the step would point elsewhere. Here the squares are summed over stages:

        |g| = √(Σ_s |g_s|²),    g_s ← g_s · min(1, max_norm / (|g| + 1e-6))

    Args:
        parameters: of this rank's stages, plain or DTensors, which are summed over their own mesh as well.
        max_norm: largest norm that stays as it is.
        group: the pipeline's ranks: `mesh["pp"].get_group()`.
    Returns: |g| before the scaling, a scalar, the same on all ranks.
    Source: Pascanu et al. 2013, algorithm 1 (https://arxiv.org/abs/1211.5063).
    """
    parameters = list(parameters)
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    square = (norm.full_tensor() if isinstance(norm, DTensor) else norm).square()
    dist.all_reduce(square, group=group)
    norm = square.sqrt()
    clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
