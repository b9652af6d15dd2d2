"""What a pipeline stores and idles, by formula, against schedules that are simulated action by action."""

import pytest

from coursekit.formulas.pipeline import bubble_over_step, micro_batches_stored
from coursekit.parallel import (
    gpipe_schedule,
    interleaved_schedule,
    one_f_one_b_schedule,
    simulate_schedule,
)

SIZES = [(2, 2), (2, 6), (4, 4), (4, 12)]


@pytest.mark.parametrize(("ranks", "batches"), [*SIZES, (4, 3)])
@pytest.mark.parametrize(("name", "schedule"), [("gpipe", gpipe_schedule), ("1f1b", one_f_one_b_schedule)])
def test_each_rank_stores_what_the_simulated_schedule_stores(name, schedule, ranks, batches):
    stored = simulate_schedule(schedule(ranks, batches)).peak_stored
    assert [micro_batches_stored(name, ranks, rank, batches, 1) for rank in range(ranks)] == stored


@pytest.mark.parametrize(("ranks", "batches"), SIZES)
@pytest.mark.parametrize("stages", [2, 3])
def test_interleaved_ranks_store_what_the_simulated_schedule_stores(stages, ranks, batches):
    simulated = simulate_schedule(interleaved_schedule(ranks, batches, stages_per_rank=stages))
    formula = [micro_batches_stored("interleaved", ranks, rank, batches, stages) for rank in range(ranks)]
    assert formula == [stored / stages for stored in simulated.peak_stored]


@pytest.mark.parametrize(("ranks", "batches"), SIZES)
def test_the_bubble_is_the_simulated_idle_share(ranks, batches):
    simulated = simulate_schedule(one_f_one_b_schedule(ranks, batches))
    assert simulated.idle_share == pytest.approx(bubble_over_step(ranks, batches, 1))


def test_without_a_pipeline_one_micro_batch_is_stored_however_many_there_are():
    assert micro_batches_stored("gpipe", 1, 0, 16, 1) == 1
