"""Who computes and who waits, in a real run with one slow rank."""

import time

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import average_gradients, launch, record_spans, replicate, split_waiting
from coursekit.parallel.spans import Span


def one_slow_rank(ddp):
    """Rank 0 has the larger batch. Return its spans, and when its computing began and ended."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)])
    model = replicate(model) if ddp else model
    inputs = torch.randn(20_000 if dist.get_rank() == 0 else 10, 256)
    for _ in range(2):
        dist.barrier()
        with record_spans() as spans:
            dist.barrier()
            start = time.perf_counter()
            loss = model(inputs).sum()
            if not ddp:
                loss.backward()
                end = time.perf_counter()
                average_gradients(model)
            else:
                end = time.perf_counter()
                loss.backward()
    return spans, start, end


def total(spans, kind):
    return sum(span.seconds for span in spans if span.kind == kind)


def test_the_quick_rank_waits_as_long_as_the_slow_one_computes_longer():
    (slow, slow_start, slow_end), (quick, _, quick_end) = launch(one_slow_rank, 2, ddp=False)
    slow, quick = split_waiting([slow, quick])
    longer = slow_end - quick_end  # not of two durations: the ranks may leave the barrier one after the other
    # Real clocks on a shared machine: a third of slack. Not splitting the waiting off is wrong by far more.
    assert total(quick, "wait") - total(slow, "wait") == pytest.approx(longer, rel=1 / 3)
    assert total(slow, "compute") == pytest.approx(slow_end - slow_start, rel=1 / 3)
    assert total(quick, "compute") < 0.5 * total(slow, "compute")
    assert [span.name for span in slow if span.kind == "communicate"] == ["barrier"] + ["all_reduce"] * 8


def test_what_ddp_sends_from_its_reducer_is_seen():
    (slow, *_), (quick, *_) = launch(one_slow_rank, 2, ddp=True)
    slow, quick = split_waiting([slow, quick])
    assert any(span.kind == "communicate" and span.name == "all_reduce" for span in slow)
    assert total(quick, "wait") > total(slow, "wait")


def test_waiting_ends_when_the_last_rank_joins():
    early = [Span("compute", "mm", 10.0, 11.0), Span("communicate", "all_reduce", 11.0, 15.0)]
    late = [Span("compute", "mm", 10.5, 14.0), Span("communicate", "all_reduce", 14.0, 15.5)]
    assert split_waiting([early, late]) == [
        [
            Span("compute", "mm", 0.0, 1.0),
            Span("wait", "all_reduce", 1.0, 4.0),
            Span("communicate", "all_reduce", 4.0, 5.0),
        ],
        [Span("compute", "mm", 0.5, 4.0), Span("communicate", "all_reduce", 4.0, 5.5)],
    ]


def test_ranks_with_different_collectives_are_an_error():
    with pytest.raises(InputError, match="different collectives"):
        split_waiting([[Span("communicate", "all_reduce", 0, 1)], [Span("communicate", "broadcast", 0, 1)]])


def test_without_communication_there_is_nothing_but_computing():
    with record_spans() as spans:
        torch.ones(10) + 1
    assert {span.kind for span in spans} == {"compute"}
    assert split_waiting([[], []]) == [[], []]
