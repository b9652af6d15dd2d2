"""A layout in its place, and the reason for it."""

from __future__ import annotations

import dataclasses
import math

from coursekit.plan.breakdown import Breakdown
from coursekit.plan.cluster import Cluster
from coursekit.plan.layout import Layout
from coursekit.units import format_bytes, format_seconds

_WORDS = {
    "compute": "on the busiest pipeline stage",
    "recompute": "of computing again",
    "tensor": "of waiting for tensor parallelism",
    "context": "of waiting for keys and values",
    "expert": "of waiting for experts",
    "pipeline": "of sending between stages",
    "bubble": "of pipeline bubble",
    "data": "of gradients and parameters that no backward pass hides",
}


@dataclasses.dataclass(frozen=True)
class RankedLayout:
    """A layout, what it costs, and why it is not the first.

    Args:
        layout: sizes of the axes and the options that suit them best.
        why: of the first what it waits for; of another why it loses.
        memory: bytes of the device that needs most; None where the layout is impossible.
        step: seconds of an optimizer step; None where the layout is impossible.
        mfu: predicted, scores of attention included.
        fits: whether the memory suffices.
    """

    layout: Layout
    why: str
    memory: Breakdown | None = None
    step: Breakdown | None = None
    mfu: float = 0.0
    fits: bool = False

    @property
    def bytes(self) -> float:
        """Of the device that needs most; infinite where the layout is impossible."""
        return math.inf if self.memory is None else self.memory.total

    @property
    def seconds(self) -> float:
        """Of an optimizer step; infinite where the layout is impossible."""
        return math.inf if self.step is None else self.step.total


def explain(each: RankedLayout, best: RankedLayout, cluster: Cluster) -> RankedLayout:
    """Return the layout with its reason, in comparison with the best one.

    Args:
        each: with memory and step, if it is possible.
        best: the first of the ranking.
        cluster: whose memory is the limit.
    """
    if each.memory is None or each.step is None:
        return each
    if not each.fits:
        why = _excess(each, cluster)
    elif each is best or best.step is None:
        why = _waits(each)
    else:
        why = _slower(each, best, cluster)
    return dataclasses.replace(each, why=why)


def _excess(each: RankedLayout, cluster: Cluster) -> str:
    assert each.memory is not None
    largest = max(each.memory, key=each.memory.parts.__getitem__)
    need, have = map(format_bytes, (each.bytes, cluster.usable_bytes))
    over = format_bytes(each.bytes - cluster.usable_bytes)
    return f"does not fit: {over} too much ({need} of {have}), most of it {largest.replace('_', ' ')}"


def _waits(each: RankedLayout) -> str:
    assert each.step is not None
    shares = {name: value / each.seconds for name, value in each.step.parts.items() if name != "compute"}
    told = [f"{share:.0%} {_WORDS[name]}" for name, share in shares.items() if share >= 0.005]
    return "computes " + (
        f"{each.step['compute'] / each.seconds:.0%} of the step; " + ", ".join(told)
        if told
        else "all the time"
    )


def _slower(each: RankedLayout, best: RankedLayout, cluster: Cluster) -> str:
    assert each.step is not None
    assert best.step is not None
    longer = {name: value - best.step[name] for name, value in each.step.parts.items()}
    part = max(longer, key=longer.__getitem__)
    if longer[part] <= 0:
        return "as quick, with more memory"
    text = f"{each.seconds / best.seconds:.2f} × the time: {format_seconds(longer[part])} more {_WORDS[part]}"
    if part == "tensor" and each.layout.tp_size > cluster.devices_per_node:
        text += f", as tp={each.layout.tp_size} leaves the node"
    return text
