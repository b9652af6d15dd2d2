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
    "expert_weights": "of reading experts' weights for few tokens",
    "tensor": "of waiting for tensor parallelism",
    "context": "of waiting for keys and values",
    "expert": "of sending tokens to experts",
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
    largest = max(each.memory, key=each.memory.parts.__getitem__).replace("_", " ")
    need, have = map(format_bytes, (each.bytes, cluster.usable_bytes))
    over = format_bytes(each.bytes - cluster.usable_bytes)
    return f"does not fit: {over} too much (needs {need}, may use {have}), most of it {largest}"


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
    shorter = min(longer, key=longer.__getitem__)
    ratio = each.seconds / best.seconds
    told = f"{ratio:.2f} × the time" if ratio >= 1.005 else f"{ratio - 1:.1%} slower"
    text = f"{told}: {format_seconds(longer[part])} more {_WORDS[part]}"
    layout, node = each.layout, cluster.devices_per_node
    if part == "tensor" and layout.tp_size > node:
        text += f", as tp={layout.tp_size} leaves the node"
    if part == "expert" and layout.tp_size * layout.ep_size > node:
        text += f", as ep={layout.ep_size} leaves the node"
    # Where one part is much longer and yet the whole is not, the reader asks what was won.
    if -longer[shorter] > 0.2 * longer[part]:
        text += f", {format_seconds(-longer[shorter])} less {_WORDS[shorter]}"
    return text
