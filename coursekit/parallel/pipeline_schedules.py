"""Pipeline schedules as data: what each rank does, in which order, and whether that can work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from coursekit.errors import InputError, check_whole

Kind = Literal["F", "B", "I", "W"]


class Action(NamedTuple):
    """One piece of a rank's work: one stage, one micro-batch.

    Attributes:
        kind: "F" forward; "B" whole backward; or, the backward cut in two, "I" gradient of the stage's input,
            which the stage before waits for, and "W" gradient of its weights, which nobody waits for.
        stage: from 0, the one with the model's first layers.
        micro_batch: from 0.

    >>> print(Action("F", stage=1, micro_batch=0))
    1F0
    """

    kind: Kind
    stage: int
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.micro_batch}"


Schedule = list[list[Action]]
"""For each rank its actions, in the order in which it does them."""


def gpipe_schedule(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return all forward passes, then all backward passes; rank r holds stage r.

    Source: Huang et al. 2019, GPipe, figure 2c (https://arxiv.org/abs/1811.06965).

    >>> print(*gpipe_schedule(2, 2)[1])
    1F0 1F1 1B0 1B1
    """
    check_sizes(num_ranks, num_micro_batches)
    batches = range(num_micro_batches)
    return [
        [Action("F", rank, batch) for batch in batches] + [Action("B", rank, batch) for batch in batches]
        for rank in range(num_ranks)
    ]


def one_f_one_b_schedule(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return the 1F1B schedule: each backward pass as early as it can be, so that few activations wait.

    Rank r first does num_ranks - 1 - r forward passes, then one forward and one backward pass in turn.

    Source: Narayanan et al. 2021, Megatron-LM, section 2.2.1 (https://arxiv.org/abs/2104.04473).

    >>> for actions in one_f_one_b_schedule(2, 3):
    ...     print(*actions)
    0F0 0F1 0B0 0F2 0B1 0B2
    1F0 1B0 1F1 1B1 1F2 1B2
    """
    check_sizes(num_ranks, num_micro_batches)
    schedule = []
    for rank in range(num_ranks):
        forward = [Action("F", rank, batch) for batch in range(num_micro_batches)]
        backward = [Action("B", rank, batch) for batch in range(num_micro_batches)]
        schedule.append(_alternate(forward, backward, warmup=num_ranks - 1 - rank))
    return schedule


def interleaved_schedule(num_ranks: int, num_micro_batches: int, *, stages_per_rank: int) -> Schedule:
    """Return interleaved 1F1B: rank r holds the stages r, r + num_ranks, r + 2 num_ranks, ...

    Micro-batches go in groups of num_ranks: a group passes a rank's first stage, then its second, ...

    Raises: InputError if the micro-batches do not fill their groups.
    Source: Narayanan et al. 2021, Megatron-LM, section 2.2.2 (https://arxiv.org/abs/2104.04473).

    >>> print(*interleaved_schedule(2, 2, stages_per_rank=2)[0])
    0F0 0F1 2F0 2F1 2B0 2B1 0B0 0B1
    """
    check_sizes(num_ranks, num_micro_batches, stages_per_rank)
    if num_micro_batches % num_ranks:
        raise InputError(
            "the micro-batches do not divide into groups of one a rank",
            expected=f"a multiple of {num_ranks}",
            got=num_micro_batches,
            fix=f"use {num_micro_batches + -num_micro_batches % num_ranks} micro-batches",
        )
    schedule = []
    for rank in range(num_ranks):
        local = [rank + num_ranks * chunk for chunk in range(stages_per_rank)]
        forward = [Action("F", *pair) for pair in _by_groups(local, num_ranks, num_micro_batches)]
        backward = [Action("B", *pair) for pair in _by_groups(local[::-1], num_ranks, num_micro_batches)]
        # Twice the distance to the last rank: a micro-batch's way there and back. And the first group passes
        # all of a rank's stages but the last before its first backward pass can begin.
        warmup = 2 * (num_ranks - 1 - rank) + (stages_per_rank - 1) * num_ranks
        schedule.append(_alternate(forward, backward, warmup=warmup))
    return schedule


def zero_bubble_schedule(num_ranks: int, num_micro_batches: int) -> Schedule:
    """Return ZB-H1: 1F1B with the backward pass cut in two, weight gradients put off to fill idle time.

    Rank r puts off r weight gradients, so that every rank holds num_ranks micro-batches, as rank 0 of 1F1B.

    Source: Qi et al. 2024, Zero Bubble Pipeline Parallelism, section 2.1 (https://arxiv.org/abs/2401.10241).

    >>> print(*zero_bubble_schedule(2, 3)[1])
    1F0 1I0 1F1 1I1 1W0 1F2 1I2 1W1 1W2
    """
    schedule = []
    for rank, actions in enumerate(one_f_one_b_schedule(num_ranks, num_micro_batches)):
        cut = []
        for action in actions:
            cut.append(action if action.kind == "F" else action._replace(kind="I"))
            if action.kind == "B" and action.micro_batch >= rank:
                cut.append(Action("W", rank, action.micro_batch - rank))
        done = max(num_micro_batches - rank, 0)
        cut += [Action("W", rank, batch) for batch in range(done, num_micro_batches)]
        schedule.append(cut)
    return schedule


def check_schedule(schedule: Sequence[Sequence[Action]], num_stages: int, num_micro_batches: int) -> None:
    """Raise if the schedule is not one: an action missing or repeated, a stage on two ranks, a deadlock.

    Every micro-batch passes every stage forward once, and back once: "B", or "I" and "W". A rank waits for
    what its next action needs; sends are taken to wait for nobody (`isend`).

    Raises: InputError that names the actions, or for a deadlock what each rank waits for.
    """
    counts = Counter(action for actions in schedule for action in actions)
    for stage in range(num_stages):
        for batch in range(num_micro_batches):
            done = {kind: counts.pop(Action(kind, stage, batch), 0) for kind in ("F", "B", "I", "W")}
            if tuple(done.values()) not in ((1, 1, 0, 0), (1, 0, 1, 1)):
                got = {kind: count for kind, count in done.items() if count}
                raise InputError(
                    f"wrong actions of stage {stage} for micro-batch {batch}",
                    expected="one F, and one B or one I and one W",
                    got=got or "none",
                )
    if counts:
        raise InputError("actions outside the schedule", got=", ".join(map(str, counts)))
    stage_ranks(schedule)
    for _ in possible_order(schedule):
        pass


def check_sizes(num_ranks: int, num_micro_batches: int, stages_per_rank: int = 1) -> None:
    """Raise if one of them is no whole number of 1 or more."""
    sizes = {
        "num_ranks": num_ranks,
        "num_micro_batches": num_micro_batches,
        "stages_per_rank": stages_per_rank,
    }
    for name, size in sizes.items():
        check_whole(f"no schedule with this {name}", **{name: size})


def _alternate(forward: list[Action], backward: list[Action], *, warmup: int) -> list[Action]:
    """Return `warmup` forward actions, then one forward and one backward in turn, then what is left."""
    warmup = min(warmup, len(forward))
    steady = [action for pair in zip(forward[warmup:], backward, strict=False) for action in pair]
    return forward[:warmup] + steady + backward[len(forward) - warmup :]


def _by_groups(stages: Sequence[int], group_size: int, num_micro_batches: int) -> Iterator[tuple[int, int]]:
    for first in range(0, num_micro_batches, group_size):
        for stage in stages:
            for batch in range(first, first + group_size):
                yield stage, batch


def stage_ranks(schedule: Sequence[Sequence[Action]]) -> dict[int, int]:
    """Return the rank of each stage; raise if a stage is on two."""
    ranks: dict[int, int] = {}
    for rank, actions in enumerate(schedule):
        for action in actions:
            if ranks.setdefault(action.stage, rank) != rank:
                raise InputError(f"stage {action.stage} is on ranks {ranks[action.stage]} and {rank}")
    return ranks


def needs(action: Action, num_stages: int, done: Mapping[Action, object]) -> Iterator[Action]:
    """Yield the actions that must have ended before this one starts."""
    kind, stage, batch = action
    if kind == "W":
        yield Action("I", stage, batch)
    elif kind == "F":
        if stage > 0:
            yield Action("F", stage - 1, batch)
    else:
        yield Action("F", stage, batch)
        if stage + 1 < num_stages:
            cut = Action("I", stage + 1, batch)
            yield cut if cut in done else Action("B", stage + 1, batch)


def possible_order(schedule: Sequence[Sequence[Action]]) -> Iterator[tuple[int, Action]]:
    """Yield every (rank, action), each after what it needs; raise if all ranks wait."""
    num_stages = len(stage_ranks(schedule))
    done: dict[Action, None] = {}
    position = [0] * len(schedule)
    while any(position[rank] < len(actions) for rank, actions in enumerate(schedule)):
        moved = False
        for rank, actions in enumerate(schedule):
            while position[rank] < len(actions):
                action = actions[position[rank]]
                if not all(needed in done for needed in needs(action, num_stages, done)):
                    break
                yield rank, action
                done[action] = None
                position[rank] += 1
                moved = True
        if not moved:
            _raise_deadlock(schedule, position, num_stages, done)


def _raise_deadlock(
    schedule: Sequence[Sequence[Action]], position: list[int], num_stages: int, done: dict[Action, None]
) -> None:
    waiting = []
    for rank, actions in enumerate(schedule):
        if position[rank] < len(actions):
            action = actions[position[rank]]
            missing = [str(needed) for needed in needs(action, num_stages, done) if needed not in done]
            waiting.append(f"rank {rank} at {action} for {' and '.join(missing)}")
    raise InputError(
        "the schedule is a deadlock", got="; ".join(waiting), fix="order each after what it needs"
    )
