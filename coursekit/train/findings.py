"""What a detector says: the fault, what was seen, the likely cause, what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Finding:
    """One fault: what was seen, the likely cause, what to try. As text, one paragraph.

    Args:
        fault: its short name: "not finite", "spike", "plateau", "no progress", ...
        seen: the fact, with numbers.
        cause: what it mostly comes from.
        advice: what to try first.
        step: the optimizer step, if there is one.

    >>> print(Finding("spike", "the loss jumped from 2 to 9", "a bad batch", "look at it", step=7))
    step 7: the loss jumped from 2 to 9. Likely cause: a bad batch. Try: look at it.
    """

    fault: str
    seen: str
    cause: str
    advice: str
    step: int | None = None

    def __str__(self) -> str:
        where = "" if self.step is None else f"step {self.step}: "
        return f"{where}{self.seen}. Likely cause: {self.cause}. Try: {self.advice}."


class Detector(Protocol):
    """What `Monitor` asks at every step; anything with this method is one."""

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """Take the figures of one step; return a finding if they show the fault for the first time."""
