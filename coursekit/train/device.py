"""Which device to use, waiting for it, and how much of its memory a block needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from coursekit.errors import InputError


def pick_device(prefer: str | torch.device | None = None) -> torch.device:
    """Return the device to train on: `prefer` if given, else CUDA, else Apple's MPS, else the CPU.

    Raises: InputError if `prefer` is not there. It never falls back in silence: a run that was
        meant for a GPU and crawls on the CPU is worse than one that stops.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if prefer is not None:
        return _checked(torch.device(prefer))
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def synchronize(device: str | torch.device) -> None:
    """Wait until the device has done all that was queued; returns at once on the CPU.

    A clock read without it measures how fast Python queues kernels, not how long they take.
    """
    device = torch.device(device)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@dataclass
class PeakMemory:
    """What `measure_peak_memory` saw, in bytes; filled when its block ends."""

    before_bytes: int = 0
    peak_bytes: int = 0

    @property
    def added_bytes(self) -> int:
        """Bytes by which the peak rose above what was allocated before the block."""
        return self.peak_bytes - self.before_bytes


@contextlib.contextmanager
def measure_peak_memory(device: str | torch.device) -> Iterator[PeakMemory]:
    """Measure the most memory that torch's allocator handed out at once on an accelerator.

    Counts tensors only (`max_memory_allocated`), not the allocator's cache, nor the CUDA context. Resets the
    allocator's peak, so blocks must not be nested.

    Raises: InputError on the CPU, whose allocator keeps no count: use `measure_saved_tensors`.
    """
    device = torch.device(device)
    if device.type == "cpu":
        raise InputError(
            "torch counts no peak memory on the CPU",
            expected="an accelerator",
            got=device,
            fix="use measure_saved_tensors for what backward keeps",
        )
    memory = PeakMemory()
    synchronize(device)
    torch.accelerator.reset_peak_memory_stats(device)
    memory.before_bytes = torch.accelerator.memory_allocated(device)
    try:
        yield memory
    finally:
        synchronize(device)
        memory.peak_bytes = torch.accelerator.max_memory_allocated(device)


def _checked(device: torch.device) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        found = [name for name, available in there.items() if available]
        raise InputError("the device is not there", expected=" or ".join(found), got=device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError("no such GPU", expected=f"index < {torch.cuda.device_count()}", got=device)
    return device
