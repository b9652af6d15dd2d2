"""Schedules are complete and possible; torch's own, where it has one, is the oracle."""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed import pipelining

from coursekit.errors import InputError
from coursekit.parallel import (
    Action,
    check_schedule,
    gpipe_schedule,
    interleaved_schedule,
    launch,
    one_f_one_b_schedule,
    zero_bubble_schedule,
)

unhurried = settings(deadline=None)  # a busy machine is slow, not wrong
ranks = st.integers(1, 6)
micro_batches = st.integers(1, 13)
F00, B00 = Action("F", 0, 0), Action("B", 0, 0)


@unhurried
@given(ranks, micro_batches)
def test_every_schedule_does_all_and_never_deadlocks(num_ranks, num_micro_batches):
    for make in (gpipe_schedule, one_f_one_b_schedule, zero_bubble_schedule):
        check_schedule(make(num_ranks, num_micro_batches), num_ranks, num_micro_batches)


@unhurried
@given(ranks, st.integers(1, 4), st.integers(1, 4))
def test_interleaved_schedules_do_all_and_never_deadlock(num_ranks, groups, stages_per_rank):
    schedule = interleaved_schedule(num_ranks, groups * num_ranks, stages_per_rank=stages_per_rank)
    check_schedule(schedule, num_ranks * stages_per_rank, groups * num_ranks)
    for rank, actions in enumerate(schedule):
        assert {action.stage % num_ranks for action in actions} == {rank}


def torch_orders(stages_per_rank, num_micro_batches):
    """What torch's schedules make every rank compute, as text; its idle and reduction steps left out."""
    num_ranks = dist.get_world_size()
    stages = [
        pipelining.PipelineStage(
            torch.nn.Linear(1, 1), dist.get_rank() + chunk * num_ranks, num_ranks * stages_per_rank, "cpu"
        )
        for chunk in range(stages_per_rank)
    ]
    if stages_per_rank > 1:
        made = {"interleaved": pipelining.ScheduleInterleaved1F1B(stages, num_micro_batches)}
    else:
        made = {
            "gpipe": pipelining.ScheduleGPipe(stages[0], num_micro_batches),
            "1f1b": pipelining.Schedule1F1B(stages[0], num_micro_batches),
            "zero_bubble": pipelining.ScheduleInterleavedZeroBubble(stages, num_micro_batches),
        }
    return {name: [compute_only(s.pipeline_order[r]) for r in range(num_ranks)] for name, s in made.items()}


def compute_only(actions):
    return [str(action) for action in actions if action is not None and action.is_compute_op]


def as_text(schedule):
    return [[str(action) for action in actions] for actions in schedule]


@pytest.mark.parametrize("num_micro_batches", [4, 8])
def test_orders_are_those_that_torch_runs(num_micro_batches):
    orders = launch(torch_orders, 4, 1, num_micro_batches)[0]
    assert orders["gpipe"] == as_text(gpipe_schedule(4, num_micro_batches))
    # torch 2.13 counts the last rank's forward passes from 1 in this table, which it only draws (it runs
    # from 0: test_pipeline_parallel.py records the order).
    assert orders["1f1b"][:-1] == as_text(one_f_one_b_schedule(4, num_micro_batches))[:-1]
    assert orders["zero_bubble"] == as_text(zero_bubble_schedule(4, num_micro_batches))
    orders = launch(torch_orders, 2, 3, num_micro_batches)[0]
    assert orders["interleaved"] == as_text(interleaved_schedule(2, num_micro_batches, stages_per_rank=3))


def test_a_deadlock_is_told_with_what_each_rank_waits_for():
    schedule = gpipe_schedule(2, 2)
    schedule[0] = [schedule[0][0], schedule[0][2], schedule[0][1], schedule[0][3]]  # 0B0 before 0F1
    with pytest.raises(InputError, match="rank 0 at 0B0 for 1B0; rank 1 at 1F1 for 0F1"):
        check_schedule(schedule, 2, 2)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([F00], "stage 0 for micro-batch 0"),
        ([F00, F00, B00], "'F': 2"),
        ([F00, B00, Action("W", 0, 0)], "'B': 1, 'W': 1"),
        ([F00, B00, Action("F", 3, 0)], "outside the schedule, got 3F0|outside the schedule: got 3F0"),
        ([B00, F00], "rank 0 at 0B0 for 0F0"),
        ([F00, Action("W", 0, 0), Action("I", 0, 0)], "rank 0 at 0W0 for 0I0"),
    ],
)
def test_missing_repeated_foreign_and_misplaced_actions_are_named(actions, message):
    with pytest.raises(InputError, match=message):
        check_schedule([actions], 1, 1)


def test_a_stage_on_two_ranks_is_an_error():
    with pytest.raises(InputError, match="stage 0 is on ranks 0 and 1"):
        check_schedule([[F00], [B00]], 1, 1)


def test_micro_batches_that_do_not_fill_groups_are_told_what_would():
    with pytest.raises(InputError, match="expected a multiple of 4, got 6; use 8 micro-batches"):
        interleaved_schedule(4, 6, stages_per_rank=2)


@pytest.mark.parametrize("make", [gpipe_schedule, one_f_one_b_schedule, zero_bubble_schedule])
def test_no_ranks_or_micro_batches_is_an_error(make):
    for sizes in ((0, 1), (1, 0)):
        with pytest.raises(InputError, match=r"expected a whole num_\w+ >= 1, got 0"):
            make(*sizes)
