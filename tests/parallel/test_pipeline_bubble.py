"""The simulator and the formulas agree exactly, in whole numbers; by-hand timelines hold both."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coursekit.errors import InputError
from coursekit.parallel import (
    Action,
    bubble_over_ideal,
    bubble_over_step,
    gpipe_schedule,
    interleaved_schedule,
    one_f_one_b_schedule,
    simulate_schedule,
    zero_bubble_schedule,
)

unhurried = settings(deadline=None)  # a busy machine is slow, not wrong
ranks = st.integers(1, 6)
micro_batches = st.integers(1, 13)
times = st.fixed_dictionaries({"F": st.integers(1, 5), "B": st.integers(1, 9)})


@unhurried
@given(ranks, micro_batches, times)
def test_gpipe_and_1f1b_idle_as_the_formulas_say(p, m, times):
    for make in (gpipe_schedule, one_f_one_b_schedule):
        simulated = simulate_schedule(make(p, m), times=times)
        ideal = m * (times["F"] + times["B"])
        assert simulated.busy == [ideal] * p
        assert (simulated.makespan - ideal) / ideal == bubble_over_ideal(p, m)
        assert simulated.idle_share == bubble_over_step(p, m)


@unhurried
@given(ranks, micro_batches)
def test_1f1b_stores_at_most_one_micro_batch_a_rank_and_gpipe_all(p, m):
    assert simulate_schedule(gpipe_schedule(p, m)).peak_stored == [m] * p
    assert simulate_schedule(one_f_one_b_schedule(p, m)).peak_stored == [min(p - r, m) for r in range(p)]


@unhurried
@given(ranks, st.integers(1, 4), st.integers(1, 4), times)
def test_interleaved_idles_a_stages_per_rank_th(p, groups, v, times):
    m = groups * p
    simulated = simulate_schedule(interleaved_schedule(p, m, stages_per_rank=v), times=times)
    ideal = m * v * (times["F"] + times["B"])
    assert (simulated.makespan - ideal) / ideal == bubble_over_ideal(p, m, stages_per_rank=v)
    assert simulated.idle_share == bubble_over_step(p, m, stages_per_rank=v)
    warmup = [2 * (p - 1 - r) + (v - 1) * p for r in range(p)]
    assert simulated.peak_stored == [min(warm + 1, m * v) for warm in warmup]


@unhurried
@given(ranks, st.integers(0, 8))
def test_zero_bubble_idles_a_third_of_1f1b_and_stores_as_much(p, extra):
    m = p + extra  # with fewer micro-batches than ranks there is too little work to fill the gaps
    simulated = simulate_schedule(zero_bubble_schedule(p, m))
    assert simulated.makespan - 3 * m == p - 1
    assert simulate_schedule(one_f_one_b_schedule(p, m)).makespan - 3 * m == 3 * (p - 1)
    assert simulated.peak_stored == [p] * p


def test_a_small_timeline_is_the_one_drawn_by_hand():
    simulated = simulate_schedule(gpipe_schedule(2, 2), times={"F": 1, "B": 2}, transfer_time=1)
    drawn = [
        [("0F0", 0, 1), ("0F1", 1, 2), ("0B0", 7, 9), ("0B1", 9, 11)],
        [("1F0", 2, 3), ("1F1", 3, 4), ("1B0", 4, 6), ("1B1", 6, 8)],
    ]
    assert [[(str(a), start, end) for a, start, end in spans] for spans in simulated.spans] == drawn
    assert (simulated.makespan, simulated.busy, simulated.idle_share) == (11, [6, 6], 10 / 22)


def test_the_slowest_stage_sets_the_pace():
    def unequal(action):
        return (3 if action.stage == 1 else 1) * (1 if action.kind == "F" else 2)

    simulated = simulate_schedule(one_f_one_b_schedule(3, 10), times=unequal)
    assert simulated.busy == [30, 90, 30]
    assert simulated.makespan == 1 + 90 + 2  # the way to the slow stage, its work, the way back from it


def test_bubble_over_ideal_is_not_the_idle_share():
    assert (bubble_over_ideal(4, 8), bubble_over_step(4, 8)) == (3 / 8, 3 / 11)


def test_a_deadlock_cannot_be_simulated():
    with pytest.raises(InputError, match="deadlock"):
        simulate_schedule([[Action("B", 0, 0), Action("F", 0, 0)]])
