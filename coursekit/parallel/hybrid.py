"""What is needed where a model that is divided among some ranks has copies on others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


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


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
