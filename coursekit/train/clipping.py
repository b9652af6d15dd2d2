"""Clipping gradients by their global norm, and telling that norm: one process or many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from coursekit.errors import InputError

Parameters = nn.Module | torch.optim.Optimizer | Iterable[Tensor]

_EPS = 1e-6  # torch's: it keeps a norm of zero from dividing, and is in the coefficient of every step


@torch.no_grad()
def clip_gradients_naive(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale every `p.grad` so that all together have at most the norm `max_norm`; return the norm before.

        ‖g‖ = √(Σ_p ‖g_p‖²),   g_p ← g_p · min(1, max_norm / (‖g‖ + 10⁻⁶))

    The version to read: one process, and it waits for the device once a parameter.

    >>> w = torch.zeros(2, requires_grad=True)
    >>> w.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradients_naive([w], 1.0), w.grad
    (5.0, tensor([0.6000, 0.8000]))
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = sum(gradient.square().sum().item() for gradient in gradients) ** 0.5
    for gradient in gradients:
        gradient *= min(1.0, max_norm / (norm + _EPS))  # one factor for all: the direction stays
    return norm


def clip_gradients(
    parameters: Parameters,
    max_norm: float,
    *,
    error_if_nonfinite: bool = False,
    pp_group: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """Scale every `p.grad` so that all together have at most the norm `max_norm`; return the norm before.

        ‖g‖ = √(Σ_p ‖g_p‖²),   g_p ← g_p · min(1, max_norm / (‖g‖ + 10⁻⁶))

    The norm is that of the whole model: of all groups of an optimizer, and of all shards of a sharded
    parameter (`DTensor`), with one all-reduce a mesh. The host doesn't wait for the device: the norm is a
    tensor, to be read when it is logged. Call it after gradients are complete (last micro-step, reduced over
    ranks, unscaled).

    Without `error_if_nonfinite` a NaN norm makes all gradients NaN; an infinite one makes finite elements 0
    and infinite ones NaN. Skip such a step, or let `torch.amp.GradScaler` do so.

    Args:
        parameters: a module, an optimizer (all its groups), or parameters. Those without a gradient don't
            count.
        max_norm: upper limit of ‖g‖; `float("inf")` only measures.
        error_if_nonfinite: raise if the norm is NaN or infinite, before anything is scaled. Looking at it
            makes the host wait for the device at every step.
        pp_group: ranks that hold *other* parameters, as pipeline stages do: their norms are added. A
            parameter that two of them hold (tied embeddings) counts twice.
    Returns: ‖g‖ before clipping, a scalar on the gradients' device; 0 if there are none.
    Raises: InputError if `max_norm` isn't positive, or what is given are no parameters (an iterator that was
        read before, gradients themselves); with `error_if_nonfinite`, naming the parameters.
    Source: Pascanu et al. 2013, algorithm 1 (https://arxiv.org/abs/1211.5063);
        `torch.nn.utils.get_total_norm`.
    """
    if max_norm is None or not max_norm > 0:
        expected = 'max_norm > 0, float("inf") to measure only'
        raise InputError("nothing is left after clipping", expected=expected, got=repr(max_norm))
    if not isinstance(parameters, (nn.Module, torch.optim.Optimizer, Tensor)):
        parameters = _listed(parameters)  # an iterator could be read only once
    by_mesh = _by_mesh(_parameters(parameters))  # torch's functions below turn autograd off themselves
    norm = _total_norm(by_mesh, pp_group)
    if error_if_nonfinite and not torch.isfinite(norm):
        raise _nonfinite_error(parameters, norm)
    if max_norm < float("inf"):
        for members in by_mesh:
            torch.nn.utils.clip_grads_with_norm_(members, max_norm, norm)
    return norm


def _total_norm(by_mesh: list[list[Tensor]], pp_group: dist.ProcessGroup | None) -> Tensor:
    norms = [torch.nn.utils.get_total_norm([parameter.grad for parameter in members]) for members in by_mesh]
    # Whole on every rank in torch 2.13, each rank's part of it in earlier ones: this is right for both.
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms or [torch.zeros(())]))
    if pp_group is not None:
        squared = total.square()
        dist.all_reduce(squared, group=pp_group)
        total = squared.sqrt()
    return total


def _parameters(parameters: Parameters) -> Iterable[Tensor]:
    if isinstance(parameters, nn.Module):
        return parameters.parameters()
    if isinstance(parameters, torch.optim.Optimizer):
        return (parameter for group in parameters.param_groups for parameter in group["params"])
    return [parameters] if isinstance(parameters, Tensor) else parameters


def _listed(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Return the parameters as a list; raise if there is nothing that could have a gradient."""
    parameters = list(parameters)
    strange = [type(each).__name__ for each in parameters if not isinstance(each, Tensor)]
    # Gradients given in the place of parameters have no gradients: the norm would be 0, and nothing clipped.
    if strange or not any(each.requires_grad for each in parameters):
        raise InputError(
            "nothing whose gradients could be clipped",
            expected="parameters",
            got=strange[0] if strange else f"{len(parameters)} tensors, none with requires_grad",
            fix="give the model, the optimizer, or model.parameters(), which can be read once",
        )
    return parameters


def _by_mesh(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return the parameters by the mesh they are sharded on: torch's joined kernels take one."""
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    meshes = [p.grad.device_mesh if isinstance(p.grad, DTensor) else None for p in with_gradient]
    if not any(meshes):  # the usual case, without the cost of sorting
        return [with_gradient] if with_gradient else []
    members: dict[object, list[Tensor]] = {}
    for mesh, parameter in zip(meshes, with_gradient, strict=True):
        members.setdefault(mesh, []).append(parameter)
    return list(members.values())


def _named(parameters: Parameters) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters with a name that tells a reader which one is meant."""
    if isinstance(parameters, nn.Module):
        yield from parameters.named_parameters()
    elif isinstance(parameters, torch.optim.Optimizer):
        for index, group in enumerate(parameters.param_groups):
            for name, parameter in _named(group["params"]):
                yield f"group {index}, {name}", parameter
    else:
        for index, parameter in enumerate([parameters] if isinstance(parameters, Tensor) else parameters):
            yield f"parameter {index} of shape {tuple(parameter.shape)}", parameter


def _nonfinite_error(parameters: Parameters, norm: Tensor) -> InputError:
    gradients = {name: parameter.grad for name, parameter in _named(parameters) if parameter.grad is not None}
    local = {name: g.to_local() if isinstance(g, DTensor) else g for name, g in gradients.items()}
    found = [name for name, gradient in local.items() if not gradient.isfinite().all()]
    names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return InputError(
        f"the gradient norm is {norm.item()}",
        expected="finite gradients",
        got=f"NaN or infinity in {names}" if found else "none in this rank's part, or squares that overflow",
        fix="skip this step; look at the loss, the learning rate and the batch before it",
    )
