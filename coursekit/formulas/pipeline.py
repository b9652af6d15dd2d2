"""What a pipeline idles, and what it stores."""

from __future__ import annotations


def bubble_over_ideal(num_ranks: int, num_micro_batches: int, stages_per_rank: int) -> float:
    """Return idle over busy time, (p - 1) / (v m).

    Source: Narayanan et al. 2021, sections 2.2.1 and 2.2.2 (https://arxiv.org/abs/2104.04473).
    """
    return (num_ranks - 1) / (stages_per_rank * num_micro_batches)


def bubble_over_step(num_ranks: int, num_micro_batches: int, stages_per_rank: int) -> float:
    """Return idle over all time, (p - 1) / (v m + p - 1), from the same source's idle over busy time."""
    return (num_ranks - 1) / (stages_per_rank * num_micro_batches + num_ranks - 1)


def micro_batches_stored(
    schedule: str, num_ranks: int, rank: int, num_micro_batches: int, stages_per_rank: int
) -> float:
    """Return how many micro-batches' activations, of all layers of a rank, it stores at once.

    gpipe stores all m; 1f1b on rank r min(p - r, m); interleaved, with v stages on a rank, the first rank
    stores p + (p - 1) / v, and rank r (2 (p - r - 1) + (v - 1) p + 1) / v, both at most m. Without a pipeline
    each micro-batch is done before the next begins: 1.

    Where:
        schedule: "gpipe", "1f1b" or "interleaved".
        num_ranks: p.
        rank: r, from 0.
        num_micro_batches: m.
        stages_per_rank: v.
    Source: Narayanan et al. 2021, section 2.2; Korthikanti et al. 2022, section 4.2.3
        (https://arxiv.org/abs/2205.05198).
    """
    if num_ranks == 1:
        return 1.0
    if schedule == "gpipe":
        return num_micro_batches
    if schedule == "interleaved":
        warm_up = 2 * (num_ranks - rank - 1) + (stages_per_rank - 1) * num_ranks
        return min(num_micro_batches, (warm_up + 1) / stages_per_rank)
    return min(num_micro_batches, num_ranks - rank)
