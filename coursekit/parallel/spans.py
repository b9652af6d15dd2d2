"""Who computes and who waits: what each rank does when, from a real run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch.profiler

from coursekit.errors import InputError

MERGE_SECONDS = 50e-6  # operators closer than this are one span: between them runs Python, which feeds them


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of time of one rank.

    Attributes:
        kind: "compute", an operator of torch runs in Python's thread; "communicate", a collective is under
            way,
            from its call to its end; "wait", the part of that before the last rank joined (`split_waiting`).
        name: of the collective; of the first operator of a stretch of computing.
        start_seconds: since 1970 as recorded; `split_waiting` counts from the first span of all ranks.
        end_seconds: likewise.
    """

    kind: Literal["compute", "communicate", "wait"]
    name: str
    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_seconds - self.start_seconds


@contextmanager
def record_spans() -> Iterator[list[Span]]:
    """Fill the list with this rank's spans in the block, in order of their start, when the block is left.

    Works for computation on the CPU with the gloo backend; also for what DDP sends from C++ during a
    backward pass. It stands on `torch.profiler`, whose first use in a process costs some milliseconds: run
    the block's work once before.
    """
    spans: list[Span] = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        yield spans
    events = list(profiler.profiler.kineto_results.events())
    spans.extend(
        sorted([*_communication(events), *_computation(events)], key=lambda span: span.start_seconds)
    )


def split_waiting(spans_by_rank: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """Return the spans with each collective divided into waiting for the last rank and working together.

    The n-th collective of every rank is taken to be the same one, so all must have made the same calls, as
    they must in a group of all ranks. Times count from the first span's start.

    Args:
        spans_by_rank: what `record_spans` gave on each rank of one machine, whose clock they share.
    Raises: InputError if the ranks' collectives differ.
    """
    calls = [[span for span in spans if span.kind == "communicate"] for spans in spans_by_rank]
    names = [[span.name for span in mine] for mine in calls]
    if any(other != names[0] for other in names[1:]):
        raise InputError(
            "the ranks made different collectives", expected="the same in the same order", got=names
        )
    joined = [max(span.start_seconds for span in together) for together in zip(*calls, strict=True)]
    zero = min((span.start_seconds for spans in spans_by_rank for span in spans), default=0.0)
    return [list(_divided(spans, joined, zero)) for spans in spans_by_rank]


def _divided(spans: Sequence[Span], joined: Sequence[float], zero: float) -> Iterator[Span]:
    last_joined = iter(joined)
    for span in spans:
        start, end = span.start_seconds - zero, span.end_seconds - zero
        if span.kind == "communicate":
            together = min(max(next(last_joined) - zero, start), end)
            if together > start:
                yield Span("wait", span.name, start, together)
            start = together
        yield Span(span.kind, span.name, start, end)


def _communication(events: Sequence[Any]) -> Iterator[Span]:
    for event in events:
        if event.name().startswith("gloo:"):
            yield _span("communicate", event.name().removeprefix("gloo:"), event)


def _computation(events: Sequence[Any]) -> Iterator[Span]:
    """Yield the stretches in which operators run, those of one thread: the one that runs most of them."""
    operators = [event for event in events if event.name().startswith("aten::")]
    threads = [event.start_thread_id() for event in operators]
    main = max(set(threads), key=threads.count, default=None)
    open_span: Span | None = None
    for event in sorted(operators, key=lambda event: event.start_ns()):
        if event.start_thread_id() != main:
            continue
        span = _span("compute", event.name().removeprefix("aten::"), event)
        if open_span is not None and span.start_seconds - open_span.end_seconds < MERGE_SECONDS:
            end = max(open_span.end_seconds, span.end_seconds)
            open_span = dataclasses.replace(open_span, end_seconds=end)
            continue
        if open_span is not None:
            yield open_span
        open_span = span
    if open_span is not None:
        yield open_span


def _span(kind: Literal["compute", "communicate"], name: str, event: Any) -> Span:
    start = event.start_ns()
    return Span(kind, name, start / 1e9, (start + event.duration_ns()) / 1e9)
