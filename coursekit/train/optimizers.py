"""Optimizers by name, and the groups of parameters that they decay or leave alone."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from coursekit.errors import InputError

from .lamb import LAMB
from .lion import Lion

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "lamb": LAMB,
    "lion": Lion,
    "muon": torch.optim.Muon,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
"""What `make_optimizer` knows, by name."""

_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,  # batch and instance norms, synchronised ones too
)


def make_optimizer(
    name: str, param_groups: Iterable[Tensor] | Iterable[dict[str, Any]], *, lr: float, **options: Any
) -> torch.optim.Optimizer:
    """Return the optimizer of that name over the parameters, with torch's fastest kernels that fit them.

    On the CPU and on CUDA these are the fused ones where the optimizer has them (one kernel updates θ, m and
    v in one pass over memory), for sharded parameters only in Adam's family; else torch's own choice.
    Parameters that are sharded over different meshes, or some sharded and some not, go one by one, since
    torch's joined kernels take one mesh only. `fused=` and `foreach=` among the options decide instead.

    Args:
        name: a key of `OPTIMIZERS`; momentum is `"sgd"` with `momentum=0.9`, and Nesterov's `nesterov=True`.
        param_groups: parameters, or groups as `parameter_groups` returns them. Shard the model first. Muon
            takes matrices of hidden layers only: make a second optimizer for the rest.
        lr: learning rate of groups that have none of their own.
        options: of the optimizer's class, such as `betas` or `weight_decay`.
    Raises: InputError for an unknown name, an option that this optimizer doesn't take, a value that it
        refuses, no parameters, a model in their place, or Muon with a parameter that is no matrix.

    >>> make_optimizer("adamw", nn.Linear(2, 2).parameters(), lr=1e-3, betas=(0.9, 0.95)).defaults["betas"]
    (0.9, 0.95)
    """
    if name not in OPTIMIZERS:
        raise InputError("no optimizer of this name", expected=" or ".join(OPTIMIZERS), got=repr(name))
    if isinstance(param_groups, nn.Module):
        fix = "give model.parameters(), or parameter_groups(model, weight_decay=...)"
        raise InputError("a model is no list of parameters", got=type(param_groups).__name__, fix=fix)
    kind = OPTIMIZERS[name]
    takes = [option for option in inspect.signature(kind).parameters if option not in ("params", "lr")]
    if unknown := sorted(set(options) - set(takes)):
        raise InputError(f"{name} has no such option", expected=f"any of {', '.join(takes)}", got=unknown)
    param_groups = list(param_groups) if isinstance(param_groups, Iterable) else [param_groups]
    parameters = list(_flat(param_groups))
    _check_finite(lr=lr, **options)
    for group in param_groups:
        _check_finite(**(group if isinstance(group, dict) else {}))
    if name == "muon":
        _check_matrices(parameters)
    if not {"fused", "foreach"} & set(options):
        options |= _kernels(parameters, takes)
    try:
        return kind(param_groups, lr=lr, **options)
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{name} refuses its arguments: {error}") from error


def parameter_groups(
    model: nn.Module, *, weight_decay: float, decay_embeddings: bool = True
) -> list[dict[str, Any]]:
    """Return the trained parameters in two groups for an optimizer: decayed ones, and ones that are not.

    Weight decay keeps matrices small, which is what it is for. On a gain it pulls towards 0 a number whose
    neutral value is 1; on a bias it limits nothing that needs a limit. So not decayed are: parameters of
    fewer than two dims, those named `...bias`, all of norm layers, and embeddings if you say so. Each trained
    parameter is in exactly one group, a tied one once (as an embedding, if it is one anywhere), a frozen one
    in none. A group without parameters is left out.

    Args:
        model: any module, sharded or not; FSDP1's flat parameters (`use_orig_params=False`) have
            lost what they were.
        weight_decay: λ of the first group; the second has 0.
        decay_embeddings: whether the tables of `nn.Embedding` and `nn.EmbeddingBag` are decayed, as in
            nanoGPT.
    Returns: groups of `params` and `weight_decay`, in the order of `model.parameters()`.
    Raises: InputError if `weight_decay` is negative or infinite, `model` is no module, or nothing is trained.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    >>> [(len(g["params"]), g["weight_decay"]) for g in parameter_groups(model, weight_decay=0.1)]
    [(1, 0.1), (3, 0.0)]
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            "layers are told apart by their modules", expected="a model", got=type(model).__name__
        )
    if not 0 <= weight_decay < math.inf:
        raise InputError("weight_decay is out of range", expected="weight_decay >= 0", got=weight_decay)
    decays = {parameter: True for parameter in model.parameters() if parameter.requires_grad}
    if not decays:
        raise InputError("nothing to optimize", expected="a parameter with requires_grad", got="none")
    spared_layers = _NORMS if decay_embeddings else (*_NORMS, nn.Embedding, nn.EmbeddingBag)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_spared = parameter.ndim < 2 or name.endswith("bias") or isinstance(module, spared_layers)
            if is_spared and parameter in decays:
                decays[parameter] = False  # stays so when a tied parameter is met again in another layer
    groups = [
        {"params": [parameter for parameter in decays if decays[parameter]], "weight_decay": weight_decay},
        {"params": [parameter for parameter in decays if not decays[parameter]], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _flat(param_groups: list[Any]) -> Iterator[Tensor]:
    """Yield the parameters of what torch takes: tensors or (name, tensor) pairs, bare or in groups."""
    for entry in param_groups:
        params = entry.get("params") if isinstance(entry, dict) else None
        if params is not None:
            yield from _flat([params] if isinstance(params, Tensor) else list(params))
            continue
        parameter = entry[1] if isinstance(entry, tuple) else entry
        if not isinstance(parameter, Tensor):
            raise InputError(
                "no parameter to optimize",
                expected="tensors, or groups: {'params': [...], 'lr': ...}",
                got=f"a dict without 'params': {list(entry)}"
                if isinstance(entry, dict)
                else repr(parameter)[:80],
                fix="give model.parameters(), or parameter_groups(model, weight_decay=...)",
            )
        yield parameter


def held_parameters(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[Tensor]:
    """Return the optimizer's parameters; raise InputError if they are not the model's."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = set(map(id, model.parameters()))
    if strange := [tuple(parameter.shape) for parameter in parameters if id(parameter) not in known]:
        raise InputError(
            "the optimizer holds parameters that the model does not",
            got=f"{len(strange)} of shapes {strange[:3]}",
            fix="make the optimizer after the model has been wrapped, sharded or moved",
        )
    return parameters


def _check_finite(**options: Any) -> None:
    """Raise for a learning rate or decay that torch would take: NaN in SGD or in a group, infinity in all."""
    for name in ("lr", "weight_decay"):
        value = options.get(name, 0.0)
        if not isinstance(value, Tensor) and not (isinstance(value, numbers.Real) and 0 <= value < math.inf):
            raise InputError(f"{name} is out of range", expected=f"a finite {name} >= 0", got=repr(value))


def _kernels(parameters: list[Tensor], takes: list[str]) -> dict[str, bool]:
    """Return the `fused` and `foreach` to use; empty for torch's own choice."""
    meshes = {parameter.device_mesh if isinstance(parameter, DTensor) else None for parameter in parameters}
    if len(meshes) > 1:
        return {"foreach": False} if "foreach" in takes else {}
    if None not in meshes and "amsgrad" not in takes:
        return {}  # of the fused kernels only those of the Adam family know how to take shards
    can_fuse = all(
        parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for parameter in parameters
    )
    return {"fused": True} if can_fuse and parameters and "fused" in takes else {}


def _check_matrices(parameters: list[Tensor]) -> None:
    shapes = [tuple(parameter.shape) for parameter in parameters if parameter.ndim != 2]
    if shapes:
        raise InputError(
            "muon orthogonalizes matrices only",
            expected="parameters of two dims",
            got=f"shapes {shapes[:3]}" + (" and more" if len(shapes) > 3 else ""),
            fix="give these, the embeddings and the head to an optimizer of their own, such as adamw",
        )
