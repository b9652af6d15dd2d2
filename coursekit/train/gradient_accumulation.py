"""Gradient accumulation: several passes over micro-batches, one update, the gradient of the joined batch."""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole

IGNORE_INDEX = -100
"""The label of a position without a target (padding, prompt): losses and counts skip it."""

Named = Mapping[str, Any]
T = TypeVar("T")
_NOTHING = contextlib.nullcontext()
_END: Any = object()


def accumulate_gradients_naive(
    loss_sum: Callable[[T], Tensor], micro_batches: Iterable[T], *, num_valid: int
) -> float:
    """Add the gradient of the mean loss per valid item to every `p.grad`; return that mean loss.

    The version to read: one process, one loss. `accumulate_gradients` does the same and more, without
    waiting for the device.

    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> accumulate_gradients_naive(lambda x: (w * x).sum(), [torch.ones(3), torch.ones(1)], num_valid=4)
    2.0
    >>> w.grad  # the mean of x over all four
    tensor(1.)
    """
    total = 0.0
    for micro_batch in micro_batches:
        loss = loss_sum(micro_batch) / num_valid  # the whole step's count, never the micro-batch's own
        loss.backward()  # adds to p.grad, and frees this micro-batch's activations
        total += loss.item()
    return total


def accumulate_gradients(
    loss_sum: Callable[[T], Tensor | Named],
    micro_batches: Iterable[T],
    *,
    num_valid: int | Tensor | Named,
    dp_size: int | None = None,
    module: nn.Module | None = None,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor | dict[str, Tensor]:
    """Add the gradient of the mean loss over all micro-batches to every `p.grad`; return that mean.

    Equals one backward pass over the joined batch, g = ∇(Σ_k S_k / Σ_k n_k), for any sizes of the
    micro-batches. Does not zero `p.grad` first, does not clip, does not step.

    Args:
        loss_sum: maps a micro-batch to S_k, the loss *summed* over its valid items (a scalar tensor).
            For several losses: a dict of such sums. Apply weights inside; they stay in the result.
        micro_batches: any iterable, read one ahead; sizes may differ. At least one.
        num_valid: Σ_k n_k, the valid items of the whole step: over all micro-batches and, under data
            parallelism, over all ranks (see `all_reduce_count`). For several losses: a dict with the same
            names, each loss divided by its own count (for a term without items, such as L2: the number of
            micro-batches, of all ranks).
        dp_size: number of ranks over which `module` *averages* gradients (DDP, FSDP). The average
            divides by it, so the loss is multiplied by it. It must be said where `module` is wrapped for
            several ranks (1 if a hook of yours sums); None is 1 elsewhere.
        module: the DDP- or FSDP-wrapped module, if there is one: its ranks then communicate once, in the
            last micro-step. FSDP ranks need the same number of micro-batches, DDP ranks need not.
        backward: what runs the backward pass, e.g. `lambda loss: scaler.scale(loss).backward()`.

    Returns: the sum of this rank's S_k over `num_valid`, detached, on the loss's device; a dict for
        several losses. Under data parallelism the sum over ranks is the mean loss of the global batch.
    Raises: InputError if there is no micro-batch or a whole batch in their place, a count is not above zero,
        what `loss_sum` returns is no scalar tensor or dict of such, names differ, or `dp_size` is missing or
        no whole number of 1 or more.
    Source: huggingface/transformers PR 34191 (the mean-of-means bug and its fix).

    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> accumulate_gradients(lambda x: (w * x).sum(), [torch.ones(3), torch.ones(1)], num_valid=4)
    tensor(2.)
    """
    if dp_size is None:
        dp_size = 1 if module is None else _only_rank(module)
    else:
        check_whole("no ranks that average", dp_size=dp_size)
    if isinstance(micro_batches, (Tensor, dict)):
        raise InputError(
            "one batch is no list of micro-batches",
            got=type(micro_batches).__name__,
            fix="give [batch], or split_into_micro_batches(batch, micro_batch_size)",
        )
    several = isinstance(num_valid, Mapping)
    counts = _checked_counts(dict(num_valid) if several else {"": num_valid})
    total: Any = None
    # `mark_last` written out, no list where there is one loss: a tiny model's step shows each microsecond.
    iterator = iter(micro_batches)
    micro_batch = next(iterator, _END)
    while micro_batch is not _END:
        following = next(iterator, _END)
        # DDP reads the switch in *forward*: it belongs inside. Where nothing is switched, nothing is paid.
        with _NOTHING if module is None else gradient_sync(module, enabled=following is _END):
            sums = loss_sum(micro_batch)
            mean = _means(sums, counts) if several else _mean(sums, num_valid)
            loss = functools.reduce(operator.add, mean) if several else mean
            backward(loss if dp_size == 1 else loss * dp_size)
        # Detached: a running sum with its graph would keep every micro-batch's activations alive.
        detached = [part.detach() for part in mean] if several else mean.detach()
        if total is None:
            total = detached
        else:
            total = list(map(operator.add, total, detached)) if several else total + detached
        micro_batch = following
    if total is None:
        raise InputError("nothing to accumulate", expected="at least one micro-batch", got=0)
    return dict(zip(counts, total, strict=True)) if several else total


@contextlib.contextmanager
def gradient_sync(module: nn.Module | None, *, enabled: bool) -> Iterator[None]:
    """Let the ranks of a DDP- or FSDP-wrapped module reduce gradients inside this block, or not.

    Both forward and backward stand inside. With `module=None`, or a module that is not wrapped, it does
    nothing, so that the same loop runs on one process.

    Raises: InputError if `module` is no module.
    Source: torch `DistributedDataParallel.no_sync`, `FSDPModule.set_requires_gradient_sync`.
    """
    if module is not None and not isinstance(module, nn.Module):
        raise InputError(
            "gradient_sync needs the wrapped module", expected="nn.Module or None", got=type(module)
        )
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP2: a switch on the root reaches all below
        module.set_is_last_backward(enabled)
        module.set_requires_gradient_sync(enabled)
        try:
            yield
        finally:
            module.set_is_last_backward(True)
            module.set_requires_gradient_sync(True)
    elif hasattr(module, "no_sync") and not enabled:  # DDP, FSDP1
        with module.no_sync():
            yield
    else:
        yield


def mark_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yield (item, is_last) pairs, reading one item ahead; for the visible loop.

    >>> list(mark_last("abc"))
    [('a', False), ('b', False), ('c', True)]
    """
    iterator = iter(items)
    try:
        current = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield current, False
        current = following
    yield current, True


def count_valid(*labels: Tensor, ignore_index: int = IGNORE_INDEX) -> int:
    """Return how many of the labels are targets, over all tensors given (any shapes, integer).

    Count the tensor that the loss sees: labels already shifted by one have lost their first position, and
    counting the unshifted ones counts a token a sequence too many. Count before moving to a GPU:
    there it waits for the device.

    Raises: InputError for anything but tensors of whole numbers: all of a mask counts, True and False.

    >>> count_valid(torch.tensor([[5, 7, IGNORE_INDEX]]), torch.tensor([IGNORE_INDEX, 1]))
    3
    """
    for tensor in labels:
        if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.dtype == torch.bool:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError("no labels to count", expected="tensors of whole numbers", got=got)
    return sum(int((tensor != ignore_index).sum()) for tensor in labels)


def all_reduce_count(num_valid: int, *, group: Any = None, device: torch.device | str = "cpu") -> int:
    """Return the sum of `num_valid` over the ranks of a process group; the count itself on one process.

    Args:
        num_valid: this rank's own count.
        group: process group, by default the world.
        device: where the count travels: the rank's GPU with NCCL, "cpu" with gloo.
    Raises: InputError for a count that is no whole number, or a group that this rank is not in.
    """
    try:
        operator.index(num_valid)
    except TypeError:
        raise InputError("no count", expected="a whole number", got=repr(num_valid)) from None
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return num_valid
    if torch.distributed.get_rank(group) < 0:  # torch would send nothing, and the count be this rank's own
        raise InputError("this rank is not in the group", fix="call it on the ranks of the group alone")
    count = torch.tensor(num_valid, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(count, group=group)
    return int(count)


def split_into_micro_batches(batch: Any, micro_batch_size: int) -> list[Any]:
    """Return the batch cut along dim 0 into views of `micro_batch_size` rows; the last may be smaller.

    Args:
        batch: a tensor, or a tuple, list or dict of tensors with equal dim 0.
        micro_batch_size: rows (sequences) of a micro-batch, at least 1.
    Raises: InputError if there are no rows, the first dimensions differ, something is no tensor, or the size
        is no whole number of 1 or more.

    >>> [len(x) for x in split_into_micro_batches(torch.arange(5), 2)]
    [2, 2, 1]
    """
    check_whole("no micro-batch can be cut", micro_batch_size=micro_batch_size)
    if isinstance(batch, Tensor):
        _check_rows([batch])
        return list(batch.split(micro_batch_size))
    if not isinstance(batch, (Mapping, tuple, list)):
        raise InputError("not a batch", expected="tensors in a tuple, list or dict", got=type(batch).__name__)
    if isinstance(batch, Mapping):
        _check_rows(list(batch.values()))
        columns = [tensor.split(micro_batch_size) for tensor in batch.values()]
        return [dict(zip(batch, parts, strict=True)) for parts in zip(*columns, strict=True)]
    _check_rows(list(batch))
    parts = zip(*(tensor.split(micro_batch_size) for tensor in batch), strict=True)
    return [type(batch)(part) if type(batch) in (tuple, list) else type(batch)(*part) for part in parts]


def group_micro_batches(loader: Iterable[T], grad_accum_steps: int) -> Iterator[list[T]]:
    """Yield lists of `grad_accum_steps` micro-batches, one list an optimizer step; the last may be shorter.

    The remainder of an epoch is a step of its own. It comes out right because `accumulate_gradients`
    divides by what it really holds; dropping it, or leaving it in `p.grad` for the next epoch, does not.

    >>> list(group_micro_batches(range(5), 2))
    [[0, 1], [2, 3], [4]]
    """
    check_whole("a step needs a micro-batch", grad_accum_steps=grad_accum_steps)
    group: list[T] = []
    for micro_batch in loader:
        group.append(micro_batch)
        if len(group) == grad_accum_steps:
            yield group
            group = []
    if group:
        yield group


def _only_rank(module: nn.Module) -> int:
    """Return 1, the number of ranks over which `module` averages; raise if it is wrapped for several."""
    is_wrapped = hasattr(module, "set_requires_gradient_sync") or hasattr(module, "no_sync")
    group = getattr(module, "process_group", None)  # DDP's, or FSDP1's
    if is_wrapped and (size := torch.distributed.get_world_size(group)) > 1:
        # Left at 1, the gradient would be that much too small, in silence.
        raise InputError(
            "the module averages gradients over ranks, and the loss is not multiplied by their number",
            expected=f"dp_size={size}, or fewer if other axes share the ranks",
            got=None,
            fix="dp_size=1 if a hook of yours sums them",
        )
    return 1


def _checked_counts(counts: dict[str, Any]) -> dict[str, Any]:
    for name, count in counts.items():
        if not isinstance(count, (int, float)) and getattr(count, "shape", None) != ():
            raise InputError("no count of items", expected="a number, or a tensor of one", got=repr(count))
        # A count on a GPU is taken as it is: looking at it would make the host wait for the device.
        on_host = not isinstance(count, Tensor) or count.device.type == "cpu"
        if on_host and not 0 < count < math.inf:
            raise InputError(
                f"the step has nothing to average{f' for {name!r}' if name else ''}",
                expected="a finite num_valid > 0",
                got=count.item() if isinstance(count, Tensor) else count,
                fix=f"are all labels IGNORE_INDEX ({IGNORE_INDEX})? skip such a step on every rank",
            )
    return counts


def _means(sums: Tensor | Named, counts: dict[str, Any]) -> list[Tensor]:
    """Return S_k / Σn of each loss, in the order of the counts."""
    if not isinstance(sums, Mapping) or sums.keys() != counts.keys():
        raise _differ_in_names(counts, sums)
    return [_mean(sums[name], count) for name, count in counts.items()]


def _mean(loss_sum: Tensor, count: Any) -> Tensor:
    if not isinstance(loss_sum, Tensor):
        raise _differ_in_names({"": count}, loss_sum)
    if loss_sum.dim():
        raise InputError(
            "a loss is not a scalar",
            expected="the sum over valid items, shape ()",
            got=tuple(loss_sum.shape),
            fix="use reduction='sum'",
        )
    return loss_sum / count


def _differ_in_names(counts: Named, sums: Tensor | Named) -> InputError:
    if not isinstance(sums, (Tensor, Mapping)):
        return InputError(
            "no loss to go back from", expected="a scalar tensor, or a dict of them", got=type(sums).__name__
        )
    one, names = "(one loss)", [{"": None} if isinstance(x, Tensor) else x for x in (counts, sums)]
    expected, got = (sorted(name or one for name in x) for x in names)
    return InputError("losses and counts differ in their names", expected=expected, got=got)


def _check_rows(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.dim():
            got = "a scalar" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError("the batch cannot be cut", expected="tensors with rows, not nested", got=got)
    rows = {len(tensor) for tensor in tensors}
    if len(rows) != 1 or rows == {0}:
        raise InputError("the batch cannot be cut", expected="equal, non-zero dim 0", got=sorted(rows))
