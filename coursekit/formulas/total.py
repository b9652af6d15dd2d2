"""The one thing done with a dict of parts: their sum."""

from __future__ import annotations


def total(parts: dict[str, float]) -> float:
    """Return the sum of the parts."""
    return sum(parts.values())
