"""Sharded data parallelism: ranks train on different data as in data parallelism, but no rank holds a second
copy of what another one holds (ZeRO, FSDP).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from coursekit.errors import InputError, check_whole
from coursekit.formulas import communication, state

from ._process_group import require_process_group

Group = dist.ProcessGroup | None


def shard_model(
    model: nn.Module,
    mesh: DeviceMesh | None = None,
    *,
    blocks: Iterable[nn.Module] | None = None,
    reshard_after_forward: bool = True,
    compute_dtype: torch.dtype | None = None,
    reduce_dtype: torch.dtype | None = None,
) -> nn.Module:
    """Replace every parameter of `model` by this rank's shard of it (FSDP2, `fully_shard`); return the model.

    Every block gathers its parameters when it is used and lets them go afterwards; its gradients are averaged
    over the ranks and each rank keeps those of its shard. What no block holds (embeddings, head) is gathered
    before the first and kept until the backward pass. All ranks must have the same parameters before, as
    after `broadcast_parameters`.

    Make the optimizer *after* this: one made before holds the old parameters, and trains nothing; see
    `check_optimizer`. The average over ranks is a mean of means; for unequal token counts scale the loss
    (`dp_size` of `coursekit.train.accumulate_gradients`).

    Args:
        model: on its device; or on "meta", and then `to_empty` and loading weights come after this.
        mesh: of one axis, over which parameters are sharded; of two, then copies of the model are kept along
            the first and shards along the second (HSDP): the second lies inside a node. None is all ranks.
        blocks: modules that are gathered one at a time, in the order of use; None is `model.blocks`. Without
            any, the whole model would be gathered at once.
        reshard_after_forward: True lets a block's parameters go after its forward pass and gathers them
            again for the backward pass (ZeRO-3). False keeps them: the communication of ZeRO-2, less than
            ZeRO-3's by one all-gather.
        compute_dtype: of the gathered parameters and of the computation; None is that of the parameters.
            Shards, gradients of shards and optimizer state keep the parameters' own dtype.
        reduce_dtype: in which gradients travel and are averaged; None is `compute_dtype`.
    Raises: InputError without blocks or process group, for a mesh of more axes, or a model sharded before.
    Source: Rajbhandari et al. 2020, ZeRO (https://arxiv.org/abs/1910.02054); Zhao et al. 2023, PyTorch FSDP
        (https://arxiv.org/abs/2304.11277).
    """
    require_process_group()
    if mesh is not None and not (isinstance(mesh, DeviceMesh) and mesh.ndim <= 2):
        got = getattr(mesh, "mesh_dim_names", type(mesh).__name__)
        raise InputError("wrong mesh", expected="one axis (FSDP) or two (HSDP)", got=got)
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        raise InputError("the model is sharded already", fix="call shard_model once")
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=reduce_dtype)
    for block in _blocks(model, blocks):
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward, mp_policy=policy)
    # What is left. None: kept after the forward pass, whose end is where the backward pass begins.
    fully_shard(model, mesh=mesh, reshard_after_forward=None, mp_policy=policy)
    return model


def shard_optimizer(
    parameters: Iterable[nn.Parameter],
    optimizer_class: type[torch.optim.Optimizer],
    *,
    group: Group = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Return an optimizer of whose state every rank holds a part, whole parameters at a time (ZeRO-1).

    It is torch's `ZeroRedundancyOptimizer`. It does not average gradients: the model is replicated, with
    DDP (`replicate`) or `average_gradients`. Each rank updates its parameters and broadcasts them. That
    sends half as much again as data parallelism alone, 3 Ψ in place of 2 Ψ, since the gradients are
    all-reduced and not reduce-scattered; `shard_model` with `reshard_after_forward=False` does not, and
    shards gradients too.

    Args:
        parameters: of the replicated model, on every rank the same.
        optimizer_class: as `torch.optim.AdamW`.
        group: the data-parallel ranks; None is all.
        options: of `optimizer_class`, as `lr=1e-3`.
    Raises: InputError for parameters that are sharded already, or without a process group.
    Source: Rajbhandari et al. 2020, ZeRO, section 5.1 (https://arxiv.org/abs/1910.02054).
    """
    require_process_group(group)
    parameters = list(parameters)
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        raise InputError(
            "the parameters are sharded already",
            fix="use a plain optimizer: its state is sharded as they are",
        )
    with warnings.catch_warnings():
        # The package compiles with torch.jit as it is imported, and torch deprecates that.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer
    return ZeroRedundancyOptimizer(parameters, optimizer_class, process_group=group, **options)


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raise if the optimizer holds parameters that are not the model's: it was made before the sharding.

    Such an optimizer runs without an error, and trains tensors that nobody uses.

    Raises: InputError with the number of such parameters.
    """
    held = {id(parameter) for parameter in model.parameters()}
    tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    strangers = sum(id(tensor) not in held for tensor in tensors)
    if strangers:
        raise InputError(
            "the optimizer trains parameters that are not the model's",
            expected="an optimizer made after shard_model",
            got=f"{strangers} of {len(tensors)} parameters that are not in the model",
            fix="call shard_model first, then make the optimizer of model.parameters()",
        )


@dataclasses.dataclass(frozen=True)
class StateBytes:
    """Bytes of what a rank keeps between steps.

    Attributes:
        parameters: in bytes, as the two others.
        gradients: of the parameters.
        optimizer: its state, such as Adam's moments, and master weights where there are any.
    """

    parameters: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All three together."""
        return self.parameters + self.gradients + self.optimizer


def zero_bytes_per_rank(
    num_params: int,
    *,
    stage: int,
    dp_size: int,
    param_bytes: float = 2,
    gradient_bytes: float = 2,
    optimizer_bytes: float = 12,
) -> StateBytes:
    """Return the bytes that a rank keeps with ZeRO stage 0 (plain data parallelism), 1, 2 or 3.

    With Ψ parameters on N ranks, 2 bytes a parameter, 2 a gradient and K = 12 of optimizer state:

        stage 0  2Ψ + 2Ψ + KΨ
        stage 1  2Ψ + 2Ψ + KΨ/N
        stage 2  2Ψ + (2 + K)Ψ/N
        stage 3  (2 + 2 + K)Ψ/N

    Args:
        num_params: Ψ.
        stage: what is sharded: 1 optimizer state, 2 gradients as well, 3 parameters as well.
        dp_size: N; with HSDP the ranks of one copy.
        param_bytes: a parameter. The defaults are 16-bit training with Adam in 32 bits.
        gradient_bytes: a parameter.
        optimizer_bytes: K, a parameter: master weight, momentum and variance of 4 bytes each.
    Raises: InputError for another stage, or no rank.
    Source: Rajbhandari et al. 2020, ZeRO, section 5 and figure 1 (https://arxiv.org/abs/1910.02054).

    >>> [round(zero_bytes_per_rank(7_500_000_000, stage=s, dp_size=64).total / 1e9, 1) for s in range(4)]
    [120.0, 31.4, 16.6, 1.9]
    """
    _check_stage(stage, dp_size)
    sizes = param_bytes, gradient_bytes, optimizer_bytes
    return StateBytes(**state.state_bytes(num_params, *sizes, stage, dp_size))


def zero_bytes_sent(param_bytes: float, *, stage: int, dp_size: int) -> float:
    """Return the bytes that a rank sends in a step on a ring with ZeRO stage 0, 1, 2 or 3.

    With Ψ bytes of parameters and as many of gradients on N ranks: 2 (N − 1)/N Ψ for stages 0 to 2, a
    reduce-scatter of gradients and an all-gather of parameters (of gradients in stage 0); 3 (N − 1)/N Ψ for
    stage 3, which gathers parameters twice. Large N: 2Ψ and 3Ψ.

    Args:
        param_bytes: Ψ in bytes, of the whole model, in the dtype that travels.
        stage: as for `zero_bytes_per_rank`.
        dp_size: N.
    Raises: InputError for another stage, or no rank.
    Source: Rajbhandari et al. 2020, ZeRO, section 7 (https://arxiv.org/abs/1910.02054).

    >>> zero_bytes_sent(1000, stage=2, dp_size=4), zero_bytes_sent(1000, stage=3, dp_size=4)
    (1500.0, 2250.0)
    """
    _check_stage(stage, dp_size)
    return communication.zero_bytes_sent(param_bytes, param_bytes, stage, dp_size)


def measure_state_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> StateBytes:
    """Return the bytes that this rank holds of parameters, gradients and optimizer state, shards as shards.

    Optimizer state without dims, such as Adam's count of steps, is left out.
    """
    parameters = list(model.parameters())
    local = getattr(optimizer, "optim", optimizer)  # ZeroRedundancyOptimizer keeps its own part in there
    states = [value for state in local.state.values() for value in state.values()]
    return StateBytes(
        parameters=_local_bytes(parameters),
        gradients=_local_bytes([p.grad for p in parameters if p.grad is not None]),
        optimizer=_local_bytes([value for value in states if isinstance(value, Tensor) and value.dim() > 0]),
    )


def _local_bytes(tensors: Sequence[Tensor]) -> int:
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors)


def _blocks(model: nn.Module, blocks: Iterable[nn.Module] | None) -> list[nn.Module]:
    """Return the given blocks, or the model's own, those that a pipeline stage has not left out."""
    found = [
        block for block in (getattr(model, "blocks", ()) if blocks is None else blocks) if block is not None
    ]
    inside = set(model.modules())
    if not found or not inside.issuperset(found):
        raise InputError(
            "no blocks to shard one at a time",
            expected="modules inside the model" if found else "a model with .blocks, or the argument blocks",
            got=", ".join(sorted({type(block).__name__ for block in found} or {type(model).__name__})),
        )
    return found


def _check_stage(stage: int, dp_size: int) -> None:
    if stage not in (0, 1, 2, 3):
        raise InputError("no such stage of ZeRO", expected="0, 1, 2 or 3", got=stage)
    check_whole("wrong dp_size", dp_size=dp_size)
