"""What a step costs, measured without making the host wait: phases, memory, utilization."""

from __future__ import annotations

import functools
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from coursekit.errors import InputError
from coursekit.formulas.budget import mfu

T = TypeVar("T")


def model_flops_utilization(
    tokens_per_second: float, *, flops_per_token: float, peak_flops_per_second: float
) -> float:
    """Return the MFU: which part, from 0 to 1, of the device's arithmetic the model's own operations fill.

        MFU = tokens_per_second · flops_per_token / peak_flops_per_second

    Args:
        tokens_per_second: trained on, on all devices that `peak_flops_per_second` counts.
        flops_per_token: of forward and backward, about 6 a parameter for short sequences. What activation
            checkpointing computes a second time is not counted: it is work, but not the model's.
        peak_flops_per_second: the device's rate at the dtype of the matrix products, dense.
    Raises: InputError if the peak is not positive.
    Source: Chowdhery et al. 2022 (PaLM), appendix B, https://arxiv.org/abs/2204.02311

    >>> round(model_flops_utilization(20_000, flops_per_token=6 * 7e9, peak_flops_per_second=989e12), 3)
    0.849
    """
    if not peak_flops_per_second > 0:
        raise InputError("no peak to compare with", expected="flops a second > 0", got=peak_flops_per_second)
    return mfu(tokens_per_second, flops_per_token, peak_flops_per_second)


def peak_memory_bytes(device: str | torch.device = "cpu") -> int:
    """Return the most memory used so far: by the tensors on an accelerator, or on the CPU by the process.

    On an accelerator torch's own count (`max_memory_allocated`: tensors, without the allocator's cache); on
    the CPU, where torch keeps none, the peak of the resident set, Python and libraries included.
    """
    device = torch.device(device)
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def start_reading(scalars: Sequence[Tensor]) -> Callable[[], list[float]]:
    """Return a function that gives the scalars as numbers; their copy to the host starts now.

    What is on an accelerator is joined to one tensor a device and copied once, without waiting. The
    function waits for that copy: called a step later, the device has that step's work queued meanwhile.

    Args:
        scalars: tensors with one element, on any devices.
    """
    if all(scalar.device.type == "cpu" for scalar in scalars):
        numbers = [scalar.item() for scalar in scalars]
        return lambda: numbers
    places = {
        device: [i for i, s in enumerate(scalars) if s.device == device] for device in _devices(scalars)
    }
    copies = {device: _start_copy([scalars[i].detach() for i in at]) for device, at in places.items()}

    def read() -> list[float]:
        numbers = [0.0] * len(scalars)
        for device, at in places.items():
            for index, number in zip(at, copies[device](), strict=True):
                numbers[index] = number
        return numbers

    return read


class PhaseTimer:
    """Adds up the seconds that named phases of a step take, on the device's own clock.

    On the CPU the clock is the host's. On an accelerator two events stand in its queue around the phase:
    what is measured is when the device passed them, and nothing waits. A phase of the host alone, such as
    loading data, then shows only what the device had to wait for it.

    Args:
        device: where the work is done.

    >>> timer = PhaseTimer()
    >>> with timer.phase("data"):
    ...     batch = list(range(10))
    >>> total = timer.phase("forward")(sum)(batch)  # the same around a function
    >>> sorted(timer.take()())
    ['data', 'forward']
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._spans: list[tuple[str, Any, Any]] = []

    def phase(self, name: str) -> Phase:
        """Return a block (`with`), or a wrapper of a function, whose time is added to phase `name`."""
        return Phase(self, name)

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; the time that each takes to come is added to phase `name`."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def take(self) -> Callable[[], dict[str, float]]:
        """Forget what was measured, and return a function that gives it: seconds by phase.

        On an accelerator it may be called once the device has passed the last phase.
        """
        spans, self._spans = self._spans, []
        between = _host_seconds if self._device.type == "cpu" else _device_seconds

        def seconds() -> dict[str, float]:
            totals: dict[str, float] = {}
            for name, start, end in spans:
                totals[name] = totals.get(name, 0.0) + between(start, end)
            return totals

        return seconds

    def _mark(self) -> Any:
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event


class Phase:
    """One phase of a step, made by `PhaseTimer.phase`: a `with` block, or a wrapper of a function."""

    __slots__ = ("_name", "_start", "_timer")

    def __init__(self, timer: PhaseTimer, name: str) -> None:
        self._timer, self._name = timer, name

    def __enter__(self) -> None:
        self._start = self._timer._mark()

    def __exit__(self, *_: object) -> None:
        self._timer._spans.append((self._name, self._start, self._timer._mark()))

    def __call__(self, function: Callable[..., T]) -> Callable[..., T]:
        """Return `function`, each call of it timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> T:
            with Phase(self._timer, self._name):  # a new one: the function may call itself
                return function(*args, **kwargs)

        return timed


def _devices(tensors: Sequence[Tensor]) -> list[torch.device]:
    return list(dict.fromkeys(tensor.device for tensor in tensors))


def _start_copy(scalars: list[Tensor]) -> Callable[[], list[float]]:
    joined = torch.stack([scalar.reshape(()) for scalar in scalars])
    if joined.device.type == "cpu":
        return joined.tolist
    # A copy that does not wait goes into pinned memory, and is garbage until the event has been passed.
    copied = joined.to("cpu", non_blocking=True)
    done = torch.Event(joined.device)
    done.record()

    def read() -> list[float]:
        done.synchronize()
        return copied.tolist()

    return read


def _host_seconds(start: float, end: float) -> float:
    return end - start


def _device_seconds(start: torch.Event, end: torch.Event) -> float:
    return start.elapsed_time(end) / 1e3  # events count milliseconds
