"""Which parts of a sequence a context-parallel rank holds."""

from __future__ import annotations

from coursekit.errors import InputError


def chunk_ids(*, cp_rank: int, cp_size: int, zigzag: bool) -> list[int]:
    """Return the chunks of rank `cp_rank`, of N or with `zigzag` of 2 N equal ones, in their order."""
    if cp_size < 1 or not 0 <= cp_rank < cp_size:
        raise InputError("no such rank", expected=f"0 to {cp_size - 1}", got=cp_rank)
    return [cp_rank, 2 * cp_size - 1 - cp_rank] if zigzag else [cp_rank]
