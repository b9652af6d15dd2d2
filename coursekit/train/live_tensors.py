"""Bytes of the tensors that a block makes, while they live: whatever keeps them, on any device."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class LiveTensors:
    """What `measure_live_tensors` counts. Storages, not tensors: two views of one storage count once."""

    live_bytes: int = 0
    """Bytes alive right now."""
    peak_bytes: int = 0
    """Most bytes that were alive at the same time."""
    timeline_bytes: list[int] = field(default_factory=lambda: [0], repr=False)
    """`live_bytes` after each storage that was made or dropped, in order; starts at 0."""

    def _add(self, num_bytes: int) -> None:
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.timeline_bytes.append(self.live_bytes)


@contextlib.contextmanager
def measure_live_tensors() -> Iterator[LiveTensors]:
    """Count the bytes of the tensors that operations in the block make, for as long as they live.

    It sees what `measure_saved_tensors` cannot: gradients, activations made again by checkpointing, and
    outputs that selective checkpointing keeps. It does not tell what they are kept for, and does not see
    scratch memory inside an operation, nor tensors from before the block. Slow: Python runs for every
    operation.

    >>> import torch
    >>> x = torch.ones(1000)
    >>> with measure_live_tensors() as live:
    ...     y = x + 1  # 4,000 bytes
    ...     z = (y * 2).sum()  # 4,000 more, for a moment; then one number
    >>> live.live_bytes, live.peak_bytes
    (4004, 8004)
    """
    live = LiveTensors()
    with _CountStorages(live):
        yield live


class _CountStorages(TorchDispatchMode):
    def __init__(self, live: LiveTensors) -> None:
        super().__init__()
        self.live, self.counted = live, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            # What was given comes back from a view or an in-place operation: no new memory.
            if storage._cdata not in given and storage._cdata not in self.counted:
                self.counted.add(storage._cdata)
                self.live._add(storage.nbytes())
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes()).atexit = False
        return result

    def _forget(self, key: int, num_bytes: int) -> None:
        self.counted.remove(key)
        self.live._add(-num_bytes)


def _storages(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
