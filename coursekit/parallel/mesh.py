"""The mesh: ranks arranged as a grid, one axis for each way of dividing the work."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from coursekit.errors import InputError
from coursekit.parallel._process_group import require_process_group

MESH_AXES = ("pp", "dp", "cp", "ep", "tp")
"""Axes of a mesh from `make_mesh`, outermost first: ranks that differ in the last alone are neighbours."""


def make_mesh(
    *,
    pp: int = 1,
    dp: int | None = None,
    cp: int = 1,
    ep: int = 1,
    tp: int = 1,
    device_type: str | None = None,
) -> DeviceMesh:
    """Return a `DeviceMesh` of all ranks with the axes pp, dp, cp, ep, tp, those of size 1 included.

    With every axis there, `mesh["tp"]` works in every layout, and a loop need not ask which are used.
    `mesh["tp"].size()`, `mesh["tp"].get_local_rank()` and `mesh["tp"].get_group()` are tp_size, tp_rank and
    the process group.

    Rank = (((pp_rank · dp + dp_rank) · cp + cp_rank) · ep + ep_rank) · tp + tp_rank. Launchers number the
    ranks of a node one after the other, so the innermost axis lies inside a node, on its fast links. Tensor
    parallelism stands there since it waits for the network several times a layer, expert and context
    parallelism next since they do once or twice a layer; data parallelism sends once a step and hides it
    behind the backward pass; a pipeline sends least, the activations between two stages.

    All ranks must call this together with the same sizes; under gloo it is checked that they do. Torch makes
    meshes of process groups, so one is needed on a single process too: `launch(function, 1)` has it.

    Args:
        pp: pipeline stages.
        dp: copies of the model, each with another part of the batch; None takes all ranks that the other
            axes leave.
        cp: parts of a sequence.
        ep: parts of a layer's experts; each of these ranks has tokens of its own, as if it were dp.
        tp: parts of every matrix.
        device_type: "cpu", "cuda", ...; None takes the accelerator under any backend but gloo, else the CPU.
    Raises: InputError if the sizes do not multiply to the number of ranks, ranks give different ones, or
        there is no process group.
    Source: Narayanan et al. 2021, Efficient large-scale language model training on GPU clusters, section 3
        (https://arxiv.org/abs/2104.04473).
    """
    require_process_group()
    sizes = _fill({"pp": pp, "dp": dp, "cp": cp, "ep": ep, "tp": tp}, dist.get_world_size())
    device_type = device_type or _device_type()
    if "gloo" in dist.get_backend():  # of nccl the ranks' GPUs may not have been chosen yet
        _check_same(sizes)
    return init_device_mesh(device_type, tuple(sizes.values()), mesh_dim_names=MESH_AXES)


def merge_axes(mesh: DeviceMesh, *axes: str) -> DeviceMesh:
    """Return the one-dimensional mesh of the ranks that differ from this one in the given axes alone.

    Gradients are averaged over all ranks that saw other tokens: `merge_axes(mesh, "dp", "cp")`. All ranks
    must call it together: it makes a process group, once for the same axes.

    Args:
        mesh: with named axes.
        axes: their names, in the mesh's order.
    Raises: InputError for an axis that the mesh has not, or another order.
    """
    names = mesh.mesh_dim_names or ()
    if not axes or list(axes) != [name for name in names if name in axes]:
        raise InputError("wrong axes", expected=f"some of {', '.join(names)}, in this order", got=axes)
    return mesh[axes]._flatten("_".join(axes))  # torch has no public name for it yet


def axis_groups(axis: str, **sizes: int) -> list[list[int]]:
    """Return the groups of ranks that an axis of a mesh makes, for mesh sizes as `make_mesh` takes them.

    Args:
        axis: one of `MESH_AXES`.
        sizes: of the axes, 1 where not given.
    Raises: InputError for an unknown axis, or a size below 1.

    >>> axis_groups("tp", dp=2, tp=2)
    [[0, 1], [2, 3]]
    >>> axis_groups("dp", dp=2, tp=2)
    [[0, 2], [1, 3]]
    """
    if unknown := {axis, *sizes} - set(MESH_AXES):
        raise InputError("no such axis", expected=", ".join(MESH_AXES), got=", ".join(sorted(unknown)))
    shape = [sizes.get(name, 1) for name in MESH_AXES]
    _check_positive(dict(zip(MESH_AXES, shape, strict=True)))
    ranks = torch.arange(math.prod(shape)).view(shape)
    position = MESH_AXES.index(axis)
    return ranks.movedim(position, -1).reshape(-1, shape[position]).tolist()


def one_axis(mesh: DeviceMesh, name: str) -> DeviceMesh:
    """Return `mesh`; raise InputError unless it has a single axis, as `mesh[name]` of a larger one has."""
    if isinstance(mesh, DeviceMesh) and mesh.ndim == 1:
        return mesh
    axes = ", ".join(mesh.mesh_dim_names or ()) if isinstance(mesh, DeviceMesh) else ""
    raise InputError(
        "a mesh of several axes" if isinstance(mesh, DeviceMesh) else "not a mesh",
        expected=f'one axis, as mesh["{name}"]',
        got=axes or type(mesh).__name__,
    )


def _check_same(sizes: dict[str, int]) -> None:
    """Raise on every rank if one has other sizes: it would wait for ranks that are elsewhere."""
    of_ranks: list = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, sizes)
    if others := [rank for rank, theirs in enumerate(of_ranks) if theirs != of_ranks[0]]:
        raise InputError(
            "the ranks make different meshes",
            expected=f"the sizes of rank 0, {of_ranks[0]}, on all",
            got=f"{of_ranks[others[0]]} on rank {others[0]}",
        )


def _fill(sizes: dict[str, int | None], world_size: int) -> dict[str, int]:
    """Return the sizes with that of dp filled in, if they make `world_size`."""
    given = {axis: size for axis, size in sizes.items() if size is not None}
    _check_positive(given)
    product = math.prod(given.values())
    left, remainder = divmod(world_size, product)
    if remainder or ("dp" in given and left != 1):
        text = " × ".join(f"{axis}={size}" for axis, size in given.items() if size != 1) or "1"
        raise InputError(
            "the mesh does not fit the ranks",
            expected=f"sizes that multiply to the {world_size} ranks",
            got=f"{text} = {product}" if "dp" in given else f"{text} = {product}, which does not divide them",
            fix=_what_would(given, world_size),
        )
    return {axis: left if size is None else size for axis, size in sizes.items()}


def _what_would(given: dict[str, int], world_size: int) -> str:
    """Return a change of one size, or else of the number of ranks, that would make the mesh fit."""
    product = math.prod(given.values())
    for axis in ("dp", "tp", "pp", "cp", "ep"):
        others = product // given.get(axis, 1)
        if axis in given and world_size % others == 0:
            return f"{axis}={world_size // others} would, and so would {product} ranks"
    above = math.ceil(world_size / product) * product
    return f"{above} ranks would"


def _check_positive(sizes: dict[str, int]) -> None:
    for axis, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"wrong size of the axis {axis}", expected="a whole number >= 1", got=repr(size))


def _device_type() -> str:
    accelerator = torch.accelerator.current_accelerator()
    return "cpu" if accelerator is None or dist.get_backend() == "gloo" else accelerator.type
