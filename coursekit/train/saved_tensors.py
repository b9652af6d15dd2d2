"""Bytes that autograd keeps for the backward pass: activation memory, measured on any device."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

_Key = tuple[torch.device, int]


@dataclass
class SavedTensors:
    """What `measure_saved_tensors` counts. Storages, not tensors: two views of one storage count once."""

    live_bytes: int = 0
    """Bytes kept right now."""
    peak_bytes: int = 0
    """Most bytes that were kept at the same time."""
    num_saved: int = 0
    """How often autograd saved a tensor that is not excluded."""
    timeline_bytes: list[int] = field(default_factory=lambda: [0], repr=False)
    """`live_bytes` after each save and each release, in order; starts at 0."""
    _owners: dict[_Key, int] = field(default_factory=dict, repr=False)

    def _add(self, key: _Key, num_bytes: int) -> None:
        self.num_saved += 1
        self._owners[key] = self._owners.get(key, 0) + 1
        if self._owners[key] == 1:
            self.live_bytes += num_bytes
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.timeline_bytes.append(self.live_bytes)

    def _release(self, key: _Key, num_bytes: int) -> None:
        self._owners[key] -= 1
        if self._owners[key] == 0:
            del self._owners[key]
            self.live_bytes -= num_bytes
        self.timeline_bytes.append(self.live_bytes)


class _Saved:
    """Holds a saved tensor; autograd drops it when backward has used it, and the count goes down with it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextlib.contextmanager
def measure_saved_tensors(*, exclude: Iterable[Tensor] = ()) -> Iterator[SavedTensors]:
    """Count the bytes that autograd saves for backward inside the block, and when it lets go of them.

    Activations are most of them; a layer's weight is saved as well, but exists anyway, so give the
    parameters as `exclude`. Inputs and labels count if autograd saves them. What it does not see: temporary
    memory inside an operation, and gradients.

    Args:
        exclude: tensors whose storage does not count, as a rule `model.parameters()`.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> with measure_saved_tensors(exclude=[x]) as saved:
    ...     y = x.exp().sum()      # exp keeps its result: 4,000 bytes
    ...     before = saved.live_bytes
    ...     y.backward()
    >>> before, saved.live_bytes, saved.peak_bytes
    (4000, 0, 4000)

    Source: torch.autograd.graph.saved_tensors_hooks.
    """
    saved = SavedTensors()
    # The tensors are kept, not only their addresses: a freed address may be given to an activation.
    kept = list(exclude)
    excluded = {_key(tensor) for tensor in kept}

    def pack(tensor: Tensor) -> _Saved:
        # Detached: an output kept with its graph would hold the graph that holds it, a cycle.
        held, key = _Saved(tensor.detach()), _key(tensor)
        if key not in excluded:
            num_bytes = tensor.untyped_storage().nbytes()
            saved._add(key, num_bytes)
            weakref.finalize(held, saved._release, key, num_bytes).atexit = False
        return held

    def unpack(held: _Saved) -> Tensor:
        return held.tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield saved


def _key(tensor: Tensor) -> _Key:
    return tensor.device, tensor.untyped_storage().data_ptr()
