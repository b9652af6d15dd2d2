"""Data parallelism: every rank holds the whole model, takes a part of the batch, and averages gradients
with the others.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from coursekit.errors import InputError, check_whole
from coursekit.units import MiB

from ._process_group import require_process_group

Batch = TypeVar("Batch")
Group = dist.ProcessGroup | None


def shard_indices(num_samples: int, *, dp_rank: int, dp_size: int) -> range:
    """Return the samples of rank `dp_rank`: those of all ranks, joined in their order, are 0 ...
    num_samples - 1.

    Rank r of N takes the samples from floor(r n / N) up to floor((r + 1) n / N). The shares differ by one
    sample at most; none is repeated, as `DistributedSampler` does to make them equal, and none is left out.

    >>> [list(shard_indices(5, dp_rank=r, dp_size=2)) for r in range(2)]
    [[0, 1], [2, 3, 4]]
    """
    check_whole("no parts", dp_size=dp_size)
    check_whole("no such rank", least=0, dp_rank=dp_rank)
    if dp_rank >= dp_size:
        raise InputError("no such rank", expected=f"0 to {dp_size - 1}", got=dp_rank)
    check_whole("a negative number of samples", least=0, num_samples=num_samples)
    return range(num_samples * dp_rank // dp_size, num_samples * (dp_rank + 1) // dp_size)


def shard_batch(batch: Batch, *, dp_rank: int, dp_size: int, allow_uneven: bool = False) -> Batch:
    """Return the part of `batch` that rank `dp_rank` trains on, as views of the tensors given.

    Args:
        batch: a tensor, or tuples, lists and mappings of tensors that share their first dim, the samples.
        dp_rank: which part, see `shard_indices`.
        dp_size: number of parts.
        allow_uneven: take a batch that does not divide; then give `average_gradients` each rank's
            `num_valid`.
    Raises: InputError if the batch does not divide, its tensors disagree about the number of samples, or
        there is no such part.
    """
    sizes = {len(tensor) if tensor.dim() else None for tensor in _tensors(batch)}
    if len(sizes) != 1 or None in sizes:
        raise InputError("no common number of samples", expected="tensors of one length", got=sizes)
    (num_samples,) = sizes
    check_whole("no parts", dp_size=dp_size)
    if num_samples % dp_size and not allow_uneven:
        above = num_samples - num_samples % dp_size + dp_size
        raise InputError(
            "the batch does not divide among the ranks",
            expected=f"a multiple of {dp_size}, as {above} is",
            got=f"{num_samples} samples",
            fix="or pass allow_uneven=True, and weigh the gradients with num_valid",
        )
    part = shard_indices(num_samples, dp_rank=dp_rank, dp_size=dp_size)
    return _map_tensors(batch, slice(part.start, part.stop))


@torch.no_grad()
def broadcast_parameters(model: nn.Module, group: Group = None) -> None:
    """Overwrite parameters and buffers of `model` with those of the group's rank 0.

    Averaged gradients keep equal models equal; they do not make unequal ones so. One broadcast a tensor.
    """
    require_process_group(group)
    for tensor in (*model.parameters(), *model.buffers()):
        with _Contiguous(tensor) as flat:
            dist.broadcast(flat, group=group, group_src=0)


@torch.no_grad()
def average_gradients(model: nn.Module, group: Group = None, *, num_valid: int | None = None) -> None:
    """Replace every `p.grad` by its mean over the ranks of `group`, one all-reduce a parameter.

    With g_r the gradient of the *mean* loss on rank r of N, and n_r the samples or tokens of that mean:

        g = (1 / N) Σ_r g_r              without `num_valid`
        g = Σ_r n_r g_r / Σ_r n_r        with `num_valid` = n_r

    The first is the gradient of the mean loss over the whole batch only if all n_r are equal: a mean of
    means weighs every rank the same, however few tokens it has. The second always is, for one more
    all-reduce, of eight bytes.

    A parameter without gradient on this rank takes part with zeros, since all ranks must make the same
    calls in the same order. If no rank has one, the gradient becomes zero and not None.

    Args:
        model: with the gradients of this rank's part of the batch.
        group: the data-parallel ranks; None is all.
        num_valid: n_r of this rank. With 0 this rank's gradients count as zero, also if they are NaN. Give
            it on all ranks or on none: otherwise gloo ends a rank ("collective mismatch"), and NCCL waits
            for the group's timeout.
    Raises: InputError if no rank has a valid token, `num_valid` is no whole number, a parameter is divided
        among ranks (a `DTensor`), this rank is not in the group, or no process group was started.
    Source: Li et al. 2020, PyTorch Distributed, section 3 (https://arxiv.org/abs/2006.15704).
    """
    require_process_group(group)
    gradients = list(_gradients(model))
    weight = _weight(num_valid, group, first=gradients[:1])
    for gradient in gradients:
        _scale(gradient, weight)
        with _Contiguous(gradient) as flat:
            dist.all_reduce(flat, group=group)


@torch.no_grad()
def average_gradients_bucketed(
    model: nn.Module, *, bucket_bytes: int = 25 * MiB, group: Group = None, num_valid: int | None = None
) -> None:
    """Do what `average_gradients` does with fewer and larger all-reduces.

    A call costs a latency whatever its size, so gradients are copied into flat buckets of up to
    `bucket_bytes` of one dtype and device, and a bucket is sent while the next one is filled. A gradient
    larger than a bucket gets one of its own. The last layers' gradients, which a backward pass has first,
    go first.

    Args:
        model: with the gradients of this rank's part of the batch.
        bucket_bytes: size of a bucket; DDP's default.
        group: the data-parallel ranks; None is all.
        num_valid: as for `average_gradients`.
    Raises: InputError as `average_gradients` does, and for a bucket without room.
    Source: Li et al. 2020, PyTorch Distributed, section 3.2.2 (https://arxiv.org/abs/2006.15704).
    """
    check_whole("a bucket without room", bucket_bytes=bucket_bytes)
    require_process_group(group)
    buckets = list(_buckets(reversed(list(_gradients(model))), bucket_bytes))
    weight = _weight(num_valid, group, first=buckets[0] if buckets else [])
    sent = []
    for bucket in buckets:
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        _scale(flat, weight)
        sent.append((dist.all_reduce(flat, group=group, async_op=True), flat, bucket))
    for work, flat, bucket in sent:
        work.wait()
        for gradient, mean in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def replicate(model: nn.Module, **ddp_options: Any) -> DistributedDataParallel:
    """Return `model` in `DistributedDataParallel`, which averages gradients during the backward pass.

    Adds what depends on where the model is: `device_ids` for a model on one GPU, none on a CPU. Gradients
    are views of the buckets (`gradient_as_bucket_view`), which saves a copy of them. DDP copies rank 0's
    parameters to all, as `broadcast_parameters` does, and takes
    the mean over ranks, so unequal token counts need the loss scaled: N n_r / Σ_r n_r times this rank's
        mean loss.

    Args:
        model: the same on every rank, on its device.
        ddp_options: of `DistributedDataParallel`; they come before what is added.
    Raises: InputError for a model spread over devices without `device_ids`, or without a process group.
    """
    require_process_group()
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) == 1 and (device := devices.pop()).type != "cpu":
        ddp_options.setdefault("device_ids", [device])
    elif len({device.type for device in devices}) > 1:
        raise InputError("a model on devices of several kinds", got=sorted(map(str, devices)))
    return DistributedDataParallel(model, **{"gradient_as_bucket_view": True, **ddp_options})


def _weight(num_valid: int | None, group: Group, *, first: list[Tensor]) -> float:
    """Return what this rank's gradients are multiplied by before they are summed.

    first: the gradients of the first all-reduce.
    """
    if num_valid is None:
        return 1.0 / dist.get_world_size(group)
    try:
        num_valid = operator.index(num_valid)
    except TypeError:  # 2.5 would be 2 in the sum, and 2.5 in this rank's share of it
        raise InputError("no count", expected="a whole num_valid", got=repr(num_valid)) from None
    if num_valid < 0:
        raise InputError("a negative num_valid", got=num_valid)
    # A rank that was given none is at its first gradients: of another size they are told apart, of the same
    # one added to the counts in silence.
    numbers = [num_valid, 0] if sum(gradient.nbytes for gradient in first) == 8 else [num_valid]
    counts = torch.tensor(numbers, dtype=torch.int64, device=first[0].device if first else "cpu")
    dist.all_reduce(counts, group=group)
    total = counts[0]
    if total == 0:
        raise InputError("no rank has a valid token", fix="check the mask of the labels")
    return num_valid / total.item()


def _scale(gradient: Tensor, weight: float) -> None:
    if weight == 0:  # a mean over nothing is NaN, and zero times NaN is NaN
        gradient.zero_()
    else:
        gradient.mul_(weight)


def _gradients(model: nn.Module) -> Iterator[Tensor]:
    """Yield the gradient of every parameter that is trained, made of zeros where there is none."""
    for parameter in model.parameters():
        if isinstance(parameter, DTensor):
            raise InputError(
                "a parameter is divided among ranks, and no collective knows what to send of it",
                fix="give local_parts(model), and the group of the ranks with the same parts; for experts "
                "use average_gradients_with_experts; FSDP has averaged already",
            )
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            yield parameter.grad


def _buckets(gradients: Iterable[Tensor], bucket_bytes: int) -> Iterator[list[Tensor]]:
    """Yield gradients in groups of one dtype and device, of up to `bucket_bytes` together."""
    open_buckets: dict[tuple, list[Tensor]] = {}
    filled: dict[tuple, int] = {}
    for gradient in gradients:
        kind = (gradient.dtype, gradient.device)
        if open_buckets.get(kind) and filled[kind] + gradient.nbytes > bucket_bytes:
            yield open_buckets.pop(kind)
        if kind not in open_buckets:
            open_buckets[kind], filled[kind] = [], 0
        open_buckets[kind].append(gradient)
        filled[kind] += gradient.nbytes
    yield from open_buckets.values()


class _Contiguous:
    """Lends a contiguous stand-in for a tensor to a collective, which needs one, and copies it back."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.stand_in = tensor, tensor.contiguous()

    def __enter__(self) -> Tensor:
        return self.stand_in

    def __exit__(self, *_: object) -> None:
        if self.stand_in is not self.tensor:
            self.tensor.copy_(self.stand_in)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _tensors(value)
    else:
        expected = "tensors in tuples, lists or mappings"
        raise InputError("not a batch", expected=expected, got=type(batch).__name__)


def _map_tensors(batch: Any, part: slice) -> Any:
    if isinstance(batch, Tensor):
        return batch[part]
    if isinstance(batch, Mapping):
        return {key: _map_tensors(value, part) for key, value in batch.items()}
    parts = [_map_tensors(value, part) for value in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
