"""Watches a run: its figures to the screen, a file, TensorBoard, and a word when something is wrong."""

from __future__ import annotations

import numbers
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from coursekit.errors import InputError, check_whole
from coursekit.train.diagnose import Detector, Finding, default_detectors
from coursekit.train.meters import (
    Phase,
    PhaseTimer,
    model_flops_utilization,
    peak_memory_bytes,
    start_reading,
)
from coursekit.train.sinks import Sink

T = TypeVar("T")
Value = Tensor | float
_Window = list[tuple[int, Value, dict[str, Value]]]


class Monitor:
    """Collects the figures of every step, and writes one record every `every` steps to each sink.

    Tensors are kept as they are and read together once every `every` steps; on an accelerator one step
    later still, when it has the next step to work on, so that it never stands idle for the reading. The
    detectors see the figures of all steps, up to `every` steps late. A record holds the last step's figures
    as they were given, and of the whole window:

    - `tokens_per_second`, by the host's clock from one window's end to the next; `mfu` if both flops are
      given;
    - `peak_memory_bytes`, see the function of that name;
    - `step_seconds`, and `<phase>_seconds` of each phase: means of a step.

    Args:
        sinks: `Screen()`, `JsonLines(path)`, `TensorBoard(folder)`, or anything with their methods. On
            several ranks give them to rank 0 alone.
        every: steps from one record to the next; what is left at the end is written by `close`.
        device: where the work is done, for phases and memory.
        flops_per_token: of forward and backward, see `model_flops_utilization`.
        peak_flops_per_second: of all devices whose tokens are counted.
        detectors: fresh ones; None for `default_detectors()`, empty for none.
    Raises: InputError if `every` is below 1, one of the two flops is missing, or a sink is none.

    >>> monitor = Monitor(every=2)
    >>> with monitor:
    ...     for step, loss in enumerate([2.0, 1.5, float("nan"), 1.0]):
    ...         monitor.log(step, loss=torch.tensor(loss), num_tokens=8)
    >>> [(finding.step, finding.fault) for finding in monitor.findings]
    [(2, 'not finite')]
    """

    findings: list[Finding]
    """What the detectors have found so far."""

    def __init__(
        self,
        sinks: Iterable[Sink] = (),
        *,
        every: int = 10,
        device: str | torch.device = "cpu",
        flops_per_token: float | None = None,
        peak_flops_per_second: float | None = None,
        detectors: Sequence[Detector] | None = None,
    ) -> None:
        check_whole("no record can be written", every=every)
        if (flops_per_token is None) != (peak_flops_per_second is None):
            raise InputError("MFU needs both flops_per_token and peak_flops_per_second", got="one of them")
        sinks = [sinks] if isinstance(sinks, str) or not isinstance(sinks, Iterable) else list(sinks)
        for sink in sinks:
            if not hasattr(sink, "write") or not hasattr(sink, "say"):
                fix = "give a list, such as [JsonLines(path)]"
                raise InputError("nothing can be written to this", expected="sinks", got=repr(sink), fix=fix)
        self.findings = []
        self._sinks, self._every, self._device = sinks, every, torch.device(device)
        self._flops = flops_per_token, peak_flops_per_second
        self._detectors = default_detectors() if detectors is None else detectors
        self._timer = PhaseTimer(device)
        self._window: _Window = []
        self._unread: Callable[[], None] | None = None
        self._window_start = time.perf_counter()

    def phase(self, name: str) -> Phase:
        """Return a block (`with`), or a wrapper of a function, whose time is counted as phase `name`."""
        return self._timer.phase(name)

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; the time that each takes to come is counted as phase `name`."""
        return self._timer.iterate(name, items)

    def log(self, step: int, *, num_tokens: Value = 0, **values: Value) -> None:
        """Take the figures of one step, such as `loss`, `grad_norm`, `lr`; between records nothing is read.

        Args:
            step: the optimizer step, from 0.
            num_tokens: tokens (or samples) of this step, on all ranks that `peak_flops_per_second` counts.
            values: numbers, or tensors of one element. A tensor is read later: do not change it in place
                (a graph of `torch.compile` that reuses its outputs does: give it a `.clone()`).
        Raises: InputError if a value has more than one element, or is no number; when the record is written.
        """
        if self._unread is not None:
            self._finish_reading()
        self._window.append((step, num_tokens, values))
        if len(self._window) >= self._every:
            self._end_window()
            if self._device.type == "cpu":  # nothing to wait for, so nothing to put off
                self._finish_reading()

    def close(self) -> None:
        """Write what has not been written and close the sinks; the end of the `with` block does it."""
        self._finish_reading()
        if self._window:
            self._end_window()
            self._finish_reading()
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Monitor:
        self._window_start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end_window(self) -> None:
        """Start to read the window's tensors; what they are is written by `_finish_reading`."""
        window, self._window = self._window, []
        now = time.perf_counter()
        seconds, self._window_start = now - self._window_start, now
        # Without detectors only the last step's figures are told, so only they are read.
        figures = _start_reading_figures(window if self._detectors else window[-1:])
        phases, tokens = self._timer.take(), _start_reading_values([tokens for _, tokens, _ in window])

        def finish() -> None:
            for step, values in figures():
                self._look(step, values)
            record = {"step": step, **values, **self._rates(sum(tokens()), seconds)}
            record |= {f"{name}_seconds": total / len(window) for name, total in phases().items()}
            record |= {"step_seconds": seconds / len(window)}
            for sink in self._sinks:
                sink.write(record)

        self._unread = finish

    def _finish_reading(self) -> None:
        if self._unread is not None:
            unread, self._unread = self._unread, None
            unread()

    def _rates(self, num_tokens: float, seconds: float) -> dict[str, float]:
        rates = {"peak_memory_bytes": peak_memory_bytes(self._device)}
        if num_tokens:
            rates["tokens_per_second"] = num_tokens / seconds
        flops_per_token, peak = self._flops
        if num_tokens and flops_per_token is not None:
            rates["mfu"] = model_flops_utilization(
                num_tokens / seconds, flops_per_token=flops_per_token, peak_flops_per_second=peak
            )
        return rates

    def _look(self, step: int, values: dict[str, float]) -> None:
        for detector in self._detectors:
            if (finding := detector.update(step, values)) is not None:
                self.findings.append(finding)
                for sink in self._sinks:
                    sink.say(step, str(finding))


def _start_reading_figures(window: _Window) -> Callable[[], list[tuple[int, dict[str, float]]]]:
    """Return a function that gives each step and its figures, with numbers in the place of tensors."""
    for step, _, values in window:
        for name, value in values.items():
            if not isinstance(value, (Tensor, numbers.Real)):
                expected, got = "a number, or a tensor of one element", repr(value)
            elif isinstance(value, Tensor) and value.dim() and value.numel() != 1:
                expected, got = "one element", tuple(value.shape)
            else:
                continue
            raise InputError(f"{name} of step {step} is no figure", expected=expected, got=got)
    read = _start_reading_values([value for _, _, values in window for value in values.values()])

    def figures() -> list[tuple[int, dict[str, float]]]:
        numbers = iter(read())  # of all steps in a row: each takes as many as it has names
        return [(step, dict(zip(values, numbers, strict=False))) for step, _, values in window]

    return figures


def _start_reading_values(values: Sequence[Value]) -> Callable[[], Sequence[float]]:
    """Return a function that gives the values, with numbers in the place of tensors."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        return lambda: values
    read = start_reading(tensors)

    def numbers() -> list[float]:
        of_tensors = iter(read())
        return [next(of_tensors) if isinstance(value, Tensor) else value for value in values]

    return numbers
