"""Exponential moving average of the weights, and evaluating with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coursekit.errors import InputError


@torch.no_grad()
def update_average_naive(average: dict[str, Tensor], model: nn.Module, *, decay: float) -> None:
    """Move every entry of `average` towards the model's parameter of that name.

        θ̄ ← d θ̄ + (1 − d) θ;   θ̄ = θ at the first call, when `average` is empty

    The version to read; `average_weights` is the one to use.

    Args:
        average: θ̄ by parameter name; filled at the first call.
        model: θ.
        decay: d, from 0 to 1.

    >>> model, average = nn.Linear(1, 1, bias=False), {}
    >>> for value in (1.0, 2.0):
    ...     _ = nn.init.constant_(model.weight, value)
    ...     update_average_naive(average, model, decay=0.9)
    >>> average
    {'weight': tensor([[1.1000]])}
    """
    for name, theta in model.named_parameters():
        # The first call copies: starting from zero would need a correction, as in Adam.
        average[name] = decay * average[name] + (1 - decay) * theta if name in average else theta.clone()


def average_weights(model: nn.Module, *, decay: float = 0.999) -> AveragedModel:
    """Return torch's `AveragedModel` that keeps the moving average of the model's weights.

        θ̄ ← d θ̄ + (1 − d) θ,   once a step: `average.update_parameters(model)` after `optimizer.step()`

    The first update copies. Parameters are averaged; buffers (running statistics, counters) are copied from
    the model at each update, so those of batch norm belong to the model's own weights, not to the average:
    see `torch.optim.swa_utils.update_bn`. `state_dict()` of the average belongs into the checkpoint. It holds
    a whole second model, on the same device.

    Args:
        model: not yet wrapped (DDP's `module`), since it is copied whole.
        decay: d, from 0 to below 1: the average reaches back about 1/(1 − d) steps.
    Raises: InputError if `decay` is out of range, or weights have 16 bits: (1 − d) of the way to the model
        is mostly less than half the gap between two such numbers, and the average would stand still.
    Source: Polyak and Juditsky 1992 (https://doi.org/10.1137/0330046); Izmailov et al. 2018
        (https://arxiv.org/abs/1803.05407).

    >>> model = nn.Linear(2, 2)
    >>> average = average_weights(model, decay=0.99)
    >>> average.update_parameters(model)
    >>> torch.equal(average.module.weight, model.weight)
    True
    """
    if not 0 <= decay < 1:
        raise InputError("no moving average keeps this share", expected="0 <= decay < 1", got=decay)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.element_size() < 4:
            raise InputError(
                "an average in so few bits stands still",
                expected="parameters of 32 bits or more",
                got=f"{name} in {parameter.dtype}",
                fix="keep the weights in float32 and compute in 16 bits with autocast",
            )
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


@contextlib.contextmanager
def use_average(model: nn.Module, average: AveragedModel) -> Iterator[None]:
    """Give the model the averaged weights inside the block, and its own ones back after it, bit for bit.

    Values are copied into the model's own tensors, so whatever holds these (an optimizer, a compiled model,
    DDP) stays valid. It takes memory for one more set of parameters and buffers. Training inside the block is
    undone.

    Args:
        model: the one that `average` was made from.
        average: as `average_weights` returned it.
    Raises: InputError if no update has been made, or names or shapes differ.
    """
    own, averaged = _tensors(model), _tensors(average.module)
    if average.n_averaged == 0:
        raise InputError("nothing is averaged yet", fix="call average.update_parameters(model) first")
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, averaged)]
    if shapes[0] != shapes[1]:
        differing = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
        raise InputError("the average is of another model", got=f"{differing[:3]} differ")
    kept = {name: tensor.detach().clone() for name, tensor in own.items()}
    _copy(own, averaged)
    try:
        yield
    finally:
        _copy(own, kept)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, those outside the state_dict too."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@torch.no_grad()
def _copy(into: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(values[name])
