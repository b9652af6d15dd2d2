"""How long a pipeline schedule takes, idles and stores: simulated, and the formulas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from coursekit.formulas import pipeline

from .pipeline_schedules import Action, check_sizes, needs, possible_order, stage_ranks

Times = Mapping[str, float] | Callable[[Action], float]
UNIT_TIMES: Mapping[str, float] = {"F": 1, "B": 2, "I": 1, "W": 1}
"""Matrix products of a linear layer by kind of action: forward one, backward two."""


@dataclasses.dataclass(frozen=True)
class Simulation:
    """What a schedule comes to, in the unit of the times given.

    Attributes:
        spans: for each rank (action, start, end) in order.
        makespan: the end of the last action of all; ranks start at 0.
        busy: for each rank the sum of its actions' times.
        peak_stored: for each rank the largest number of micro-batches, times stages, whose activations it
            holds at once. They are stored from the start of F to the end of B, or of W: what is let go
            after I is not counted.
    """

    spans: list[list[tuple[Action, float, float]]]
    makespan: float
    busy: list[float]
    peak_stored: list[int]

    @property
    def idle_share(self) -> float:
        """Idle time over all time, of all ranks together, from 0 to 1."""
        total = self.makespan * len(self.busy)
        return (total - sum(self.busy)) / total


def simulate_schedule(
    schedule: Sequence[Sequence[Action]], *, times: Times = UNIT_TIMES, transfer_time: float = 0
) -> Simulation:
    """Return when each action runs if every rank starts the next one as soon as what it needs is there.

    Args:
        schedule: see `check_schedule`.
        times: how long an action takes, by kind, or a function of the action (stages of unequal cost).
        transfer_time: from the end of an action to the start of the one on another rank that needs it.
    Raises: InputError for a deadlock, or a stage on two ranks.

    >>> from coursekit.parallel import one_f_one_b_schedule
    >>> simulated = simulate_schedule(one_f_one_b_schedule(4, 8))
    >>> simulated.makespan, simulated.peak_stored
    (33, [4, 3, 2, 1])
    """
    duration = times if callable(times) else lambda action: times[action.kind]
    ranks = stage_ranks(schedule)
    num_stages = len(ranks)
    ends: dict[Action, float] = {}
    free = [0] * len(schedule)
    spans: list[list[tuple[Action, float, float]]] = [[] for _ in schedule]
    for rank, action in possible_order(schedule):
        start = free[rank]
        for needed in needs(action, num_stages, ends):
            delay = transfer_time if ranks[needed.stage] != rank else 0
            start = max(start, ends[needed] + delay)
        free[rank] = ends[action] = start + duration(action)
        spans[rank].append((action, start, free[rank]))
    busy = [sum(duration(action) for action in actions) for actions in schedule]
    return Simulation(spans, max(free), busy, [_peak_stored(actions) for actions in schedule])


def bubble_over_ideal(num_ranks: int, num_micro_batches: int, *, stages_per_rank: int = 1) -> float:
    """Return idle time over *busy* time, (p - 1) / (v m), of GPipe, 1F1B and interleaved 1F1B.

    With p ranks, m micro-batches (for v > 1 a multiple of p), v stages a rank, all of one cost, and
    transfers that take no time. It is not the idle share of the step, see `bubble_over_step`.

    Source: Narayanan et al. 2021, Megatron-LM, sections 2.2.1 and 2.2.2 (https://arxiv.org/abs/2104.04473).

    >>> bubble_over_ideal(4, 8)
    0.375
    """
    check_sizes(num_ranks, num_micro_batches, stages_per_rank)
    return pipeline.bubble_over_ideal(num_ranks, num_micro_batches, stages_per_rank)


def bubble_over_step(num_ranks: int, num_micro_batches: int, *, stages_per_rank: int = 1) -> float:
    """Return idle time over *all* time, (p - 1) / (v m + p - 1); symbols as in `bubble_over_ideal`.

    >>> round(bubble_over_step(4, 8), 3)
    0.273
    """
    check_sizes(num_ranks, num_micro_batches, stages_per_rank)
    return pipeline.bubble_over_step(num_ranks, num_micro_batches, stages_per_rank)


def _peak_stored(actions: Sequence[Action]) -> int:
    stored = peak = 0
    for action in actions:
        if action.kind == "F":
            stored += 1
            peak = max(peak, stored)
        elif action.kind in ("B", "W"):
            stored -= 1
    return peak
