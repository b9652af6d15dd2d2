"""What a rank sends: calls and bytes by collective, counted in a real run, and what the textbook says of
them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from coursekit.errors import InputError, check_whole
from coursekit.formulas.communication import ring_all_reduce, ring_pass
from coursekit.units import format_bytes

# Bytes that a rank sends on a ring, of the payload and the number of ranks.
_RING_BYTES: dict[str, Callable[[float, int], float]] = {
    "all_reduce": ring_all_reduce,
    "all_gather": ring_pass,
    "reduce_scatter": ring_pass,
    "all_to_all": ring_pass,
    "broadcast": ring_pass,
    "reduce": ring_pass,
    "gather": lambda payload, n: ring_pass(payload, n) / n,
    "scatter": lambda payload, n: ring_pass(payload, n) / n,
    "send": lambda payload, n: payload,
    "recv": lambda payload, n: 0.0,
    "barrier": lambda payload, n: 0.0,
}


def ring_bytes_sent(collective: str, payload_bytes: float, world_size: int) -> float:
    """Return the bytes that a rank sends, in the mean over ranks, when `world_size` ranks work as a ring.

    With payload S and N ranks: all_reduce 2 (N - 1) / N S, which is a reduce_scatter and an all_gather of
    (N - 1) / N S each; broadcast and reduce (N - 1) / N S, since every rank but the last hands the payload
    on. all_to_all sends what is not for the rank itself; gather and scatter move N - 1 parts of S / N,
    shared out over N ranks. A library may choose another way (a tree for small payloads); no way of doing
    an all_reduce sends less than the ring.

    Args:
        collective: name, as `torch.distributed` has it.
        payload_bytes: S: the tensor that is reduced, broadcast or sent; for all_gather, gather, scatter,
            reduce_scatter and all_to_all
            the *whole* one, N parts together.
        world_size: N.
    Raises: InputError for a collective that has no formula here.
    Source: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms
    (https://doi.org/10.1016/j.jpdc.2008.09.002);
        NVIDIA/nccl-tests, doc/PERFORMANCE.md.

    >>> ring_bytes_sent("all_reduce", 1000, 4)
    1500.0
    """
    if collective not in _RING_BYTES:
        raise InputError("unknown collective", expected=", ".join(_RING_BYTES), got=repr(collective))
    check_whole("wrong world_size", world_size=world_size)
    return _RING_BYTES[collective](payload_bytes, world_size)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a collective by this rank: its payload, as `ring_bytes_sent` defines it, and the size of
    its group.
    """

    collective: str
    payload_bytes: int
    group_size: int


@dataclasses.dataclass
class Communication:
    """The calls that this rank made, in their order.

    Attributes:
        records: one `Call` a call.
    """

    records: list[Call] = dataclasses.field(default_factory=list)

    @property
    def calls(self) -> Counter[str]:
        """Number of calls by collective."""
        return Counter(call.collective for call in self.records)

    @property
    def payload_bytes(self) -> Counter[str]:
        """Bytes of payload by collective."""
        total: Counter[str] = Counter()
        for call in self.records:
            total[call.collective] += call.payload_bytes
        return total

    @property
    def ring_bytes(self) -> float:
        """Bytes that this rank would send in all these calls on rings; see `ring_bytes_sent`."""
        return sum(
            ring_bytes_sent(call.collective, call.payload_bytes, call.group_size) for call in self.records
        )

    def __str__(self) -> str:
        rows = [
            f"{name:<15}{number:>6} calls {format_bytes(self.payload_bytes[name]):>12}"
            for name, number in self.calls.items()
        ]
        return "\n".join([*rows, f"sent on a ring: {format_bytes(self.ring_bytes)}"])


@contextmanager
def count_communication() -> Iterator[Communication]:
    """Count what this rank's thread communicates inside the block, and in the backward passes that it starts.

    Every collective of torch, also one that `DistributedDataParallel`'s reducer launches from C++ or that a
    DTensor needs, is an operator of torch's dispatcher, and is seen there. What a library builds of
    collectives (`all_gather_object`) is counted as those. Not seen are calls of other threads, and those
    inside code compiled by `torch.compile`. Every operator passes through Python meanwhile, so do not time
    the block.

    >>> with count_communication() as communication:
    ...     pass  # the forward pass, loss.backward(), optimizer.step()
    >>> communication.calls
    Counter()
    """
    communication = Communication()
    with _Watch(communication.records):
        yield communication


class _Watch(TorchDispatchMode):
    def __init__(self, records: list[Call]) -> None:
        super().__init__()
        self.records = records

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # let the DTensor act first: what it communicates then comes here
        if func.namespace in ("c10d", "_c10d_functional"):
            self.records.extend(_calls(func, args))
        return func(*args, **(kwargs or {}))


def _first(args: Sequence[Any], group_size: int) -> int:
    return _num_bytes(args[0])


def _second(args: Sequence[Any], group_size: int) -> int:
    return _num_bytes(args[1])


def _first_of_each(args: Sequence[Any], group_size: int) -> int:
    return _num_bytes(args[0]) * group_size


def _second_of_each(args: Sequence[Any], group_size: int) -> int:
    return _num_bytes(args[1]) * group_size


def _nothing(args: Sequence[Any], group_size: int) -> int:
    return 0


# Operator -> collective, and where its arguments hold the payload. The c10d operators are what
# ProcessGroup's methods call; the functional ones are what DTensor and tensor parallelism call, and do not
# show the c10d operators below them.
_OPERATORS: dict[str, tuple[str, Callable[[Sequence[Any], int], int]]] = {
    "c10d::allreduce_": ("all_reduce", _first),
    "c10d::allreduce_coalesced_": ("all_reduce", _first),
    "c10d::broadcast_": ("broadcast", _first),
    "c10d::reduce_": ("reduce", _first),
    "c10d::allgather_": ("all_gather", _first),
    "c10d::allgather_coalesced_": ("all_gather", _first),
    "c10d::_allgather_base_": ("all_gather", _first),
    "c10d::allgather_into_tensor_coalesced_": ("all_gather", _first),
    "c10d::reduce_scatter_": ("reduce_scatter", _second),
    "c10d::_reduce_scatter_base_": ("reduce_scatter", _second),
    "c10d::reduce_scatter_tensor_coalesced_": ("reduce_scatter", _second),
    "c10d::alltoall_": ("all_to_all", _second),
    "c10d::alltoall_base_": ("all_to_all", _second),
    "c10d::gather_": ("gather", _second_of_each),  # the root alone has room for all of it
    "c10d::scatter_": ("scatter", _first_of_each),  # the root alone holds all of it
    "c10d::send": ("send", _first),
    "c10d::recv_": ("recv", _first),
    "c10d::recv_any_source_": ("recv", _first),
    "c10d::barrier": ("barrier", _nothing),
    "c10d::monitored_barrier_": ("barrier", _nothing),
    "_c10d_functional::all_reduce": ("all_reduce", _first),
    "_c10d_functional::all_reduce_": ("all_reduce", _first),
    "_c10d_functional::all_reduce_coalesced": ("all_reduce", _first),
    "_c10d_functional::all_reduce_coalesced_": ("all_reduce", _first),
    "_c10d_functional::broadcast": ("broadcast", _first),
    "_c10d_functional::broadcast_": ("broadcast", _first),
    "_c10d_functional::all_gather_into_tensor": ("all_gather", _first_of_each),
    "_c10d_functional::all_gather_into_tensor_out": ("all_gather", _first_of_each),
    "_c10d_functional::all_gather_into_tensor_coalesced": ("all_gather", _first_of_each),
    "_c10d_functional::reduce_scatter_tensor": ("reduce_scatter", _first),
    "_c10d_functional::reduce_scatter_tensor_out": ("reduce_scatter", _first),
    "_c10d_functional::reduce_scatter_tensor_coalesced": ("reduce_scatter", _first),
    "_c10d_functional::all_to_all_single": ("all_to_all", _first),
    "_c10d_functional::isend": ("send", _first),
    "_c10d_functional::irecv": ("recv", _first),
}


def _calls(func: Any, args: Sequence[Any]) -> Iterator[Call]:
    name = func.name().split(".")[0]
    if name == "_c10d_functional::batch_p2p_ops":
        for operation, tensor in zip(args[0], args[3], strict=True):
            yield Call("send" if "send" in operation else "recv", _num_bytes(tensor), 2)
    elif name in _OPERATORS:
        collective, payload = _OPERATORS[name]
        group_size = _group_size(func, args)
        yield Call(collective, payload(args, group_size), group_size)


def _group_size(func: Any, args: Sequence[Any]) -> int:
    """Return the number of ranks of the group that the operator was given, as an object or by name."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.name == "process_group":
            return dist.ProcessGroup.unbox(value).size()
        if argument.name == "group_name":
            group = dist.distributed_c10d._resolve_process_group(value) if isinstance(value, str) else value
            return group.size()
    return dist.get_world_size()


def _num_bytes(value: Any) -> int:
    """Return the bytes of a tensor, or of all tensors in nested lists."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_num_bytes(item) for item in value)
