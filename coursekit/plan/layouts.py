"""Which layout: all that a cluster allows, ranked by the predicted step, and why each other one loses."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, get_args

from coursekit.errors import InputError, check_whole
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.cluster import Cluster
from coursekit.plan.layout import Checkpointing, ExpertLayers, Layout, check_layout
from coursekit.plan.memory_per_device import memory
from coursekit.plan.ranked_layout import RankedLayout, explain
from coursekit.plan.recipes import PrecisionRecipe
from coursekit.plan.step_time import decisive_stages, predicted_mfu, step_seconds

_MICRO_BATCH_SIZES = (1, 2, 4, 8)
_STAGES_PER_RANK = (1, 2, 4)
_CAN_BE_FIXED = frozenset(
    "dp_size tp_size pp_size cp_size ep_size zero_stage micro_batch_size checkpointing attention "
    "sequence_parallel stages_per_rank".split()
)
_TOKENS_WORTH_SPLITTING = 8192
"""Shorter parts of a sequence are not tried: attention is not what takes memory or time there."""


def rank_layouts(
    shape: Any,
    cluster: Cluster,
    *,
    global_batch_tokens: int,
    seq_len: int,
    recipe: str | PrecisionRecipe = "mixed_16",
    experts: ExpertLayers | None = None,
    fixed: dict[str, Any] | None = None,
) -> list[RankedLayout]:
    """Return one layout for each mesh of the cluster's devices, by predicted step time, the quickest first.

    A mesh is a choice of dp, tp, pp, cp and, for a model with experts, ep, which divides their number and
    may reach over nodes. For each the quickest options that fit are taken: ZeRO's stage, micro-batch,
    checkpointing, order of the pipeline; or those that come nearest to fitting. After the layouts that fit
    come those that do not, the least excess first, then the impossible ones.

    Tensor parallelism always comes with sequence parallelism here, which costs no bytes, and attention is
    fused. Not tried: other sizes for experts than for attention on the same ranks (Megatron-Core's folding),
    and all-to-alls that pass behind computing (DeepSeek-V3's DualPipe).

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        cluster: devices and networks; every device is used.
        global_batch_tokens: of an optimizer step: what training well allows, not what is quick.
        seq_len: tokens of a sequence.
        recipe: name or `PrecisionRecipe`.
        experts: in the place of feed-forward layers; routing is taken to be even.
        fixed: fields of `Layout` that are decided already, such as `{"tp_size": 8}`. The number of
            micro-batches follows from the batch, and the order of the pipeline from the stages a rank.
    Raises: InputError if the batch is no whole number of sequences, `fixed` names another field or gives no
        size, or `cluster` is none.

    >>> from coursekit.models import preset
    >>> ranked = rank_layouts(
    ...     preset("llama3-8b"), Cluster(), global_batch_tokens=2**19, seq_len=8192, recipe="mixed_18"
    ... )
    >>> best = ranked[0].layout
    >>> best.dp_size, best.tp_size, ranked[0].fits
    (4, 2, True)
    """
    check_whole("no sequences", global_batch_tokens=global_batch_tokens, seq_len=seq_len)
    if not isinstance(cluster, Cluster):
        raise InputError("no cluster", expected="a Cluster", got=repr(cluster))
    sequences, rest = divmod(global_batch_tokens, seq_len)
    if rest or not sequences:
        raise InputError(
            "the batch is no whole number of sequences",
            expected=f"a multiple of {seq_len} tokens",
            got=global_batch_tokens,
        )
    fixed = fixed or {}
    if unknown := set(fixed) - _CAN_BE_FIXED:
        raise InputError(
            "this cannot be decided beforehand",
            expected=", ".join(sorted(_CAN_BE_FIXED)),
            got=", ".join(sorted(unknown)),
        )
    sizes = {
        name: size for name, size in fixed.items() if name.endswith("_size") or name == "stages_per_rank"
    }
    check_whole("this cannot be decided so", **sizes)
    search = _Search(shape, cluster, sequences, seq_len, recipe, experts, fixed)
    ranked = sorted(map(search.best, search.meshes()), key=_order)
    if not ranked:
        raise InputError(
            "no mesh of these devices",
            expected=f"sizes whose product divides {cluster.num_devices}",
            got=", ".join(f"{name}={value}" for name, value in fixed.items()),
        )
    return [explain(each, ranked[0], cluster) for each in ranked]


@dataclasses.dataclass(frozen=True)
class _Search:
    """What is the same for every mesh."""

    shape: Any
    cluster: Cluster
    sequences: int
    seq_len: int
    recipe: str | PrecisionRecipe
    experts: ExpertLayers | None
    fixed: dict[str, Any]

    def meshes(self) -> Iterator[dict[str, int]]:
        """Yield the sizes of the axes, dp what the others leave."""
        most = {
            "tp_size": min(self.shape.n_heads, 2 * self.cluster.devices_per_node),
            "pp_size": self.shape.n_layers,
            "cp_size": max(1, self.seq_len // _TOKENS_WORTH_SPLITTING),
            "ep_size": self.experts.n_experts if self.experts else 1,
        }
        sizes_of = {axis: _divisors(self.cluster.num_devices, limit) for axis, limit in most.items()}
        sizes_of["ep_size"] = [size for size in sizes_of["ep_size"] if most["ep_size"] % size == 0]
        choices = [[self.fixed[axis]] if axis in self.fixed else sizes_of[axis] for axis in most]
        for sizes in itertools.product(*choices):
            dp_size, rest = divmod(self.cluster.num_devices, math.prod(sizes))
            if not rest and self.fixed.get("dp_size", dp_size) == dp_size:
                yield {"dp_size": dp_size, **dict(zip(most, sizes, strict=True))}

    def best(self, mesh: dict[str, int]) -> RankedLayout:
        """Return the quickest options of a mesh that fit, else the smallest, else why there are none."""
        decided = {name: value for name, value in self.fixed.items() if name != "stages_per_rank"}
        plain = Layout(**{"sequence_parallel": mesh["tp_size"] > 1, **mesh, **decided})
        try:
            check_layout(self.shape, plain, self.experts, self.seq_len)
        except InputError as error:
            return RankedLayout(plain, f"impossible: {error}")
        groups = mesh["dp_size"] * mesh["ep_size"]
        if self.sequences % groups:
            return RankedLayout(plain, f"impossible: {_cannot_share(self.sequences, groups)}")
        sized = [(layout, self.memory(layout)) for layout in self.options(mesh)]
        if not sized:
            per_copy = self.sequences // groups
            return RankedLayout(
                plain, f"impossible: {per_copy} sequences a copy do not divide as was decided"
            )
        fitting = [(layout, size) for layout, size in sized if size.total <= self.cluster.usable_bytes]
        if not fitting:
            layout, size = min(sized, key=lambda pair: pair[1].total)
            return self.costed(layout, size, fits=False)
        # Where two take as long, the one that needs less memory.
        return min(
            (self.costed(layout, size, fits=True) for layout, size in fitting),
            key=lambda each: (round(each.seconds, 9), each.bytes),
        )

    def options(self, mesh: dict[str, int]) -> Iterator[Layout]:
        """Yield a mesh with everything that may be combined with it."""
        per_copy = self.sequences // (mesh["dp_size"] * mesh["ep_size"])
        has_stages = mesh["pp_size"] > 1
        fused = self.fixed.get("attention", "flash") == "flash"
        choices = {
            "micro_batch_size": [b for b in _MICRO_BATCH_SIZES if per_copy % b == 0],
            "zero_stage": [0]
            if mesh["dp_size"] * mesh["cp_size"] * mesh["ep_size"] == 1
            else [0, 1, 2]
            if has_stages
            else range(4),
            # "selective" computes the scores again, which fused attention does not keep.
            "checkpointing": ["none", "full"] if fused else get_args(Checkpointing),
            "stages_per_rank": _STAGES_PER_RANK if has_stages else [1],
        }
        choices |= {name: [value] for name, value in self.fixed.items() if name not in mesh}
        for values in itertools.product(*choices.values()):
            options = dict(zip(choices, values, strict=True))
            micro_batches = per_copy // options["micro_batch_size"]
            stages = options["stages_per_rank"]
            if per_copy % options["micro_batch_size"] or (stages > 1 and not has_stages):
                continue
            # Interleaving needs the micro-batches in groups of as many as there are ranks.
            if stages > 1 and (
                stages * mesh["pp_size"] > self.shape.n_layers or micro_batches % mesh["pp_size"]
            ):
                continue
            order = {"schedule": "interleaved" if stages > 1 else "1f1b", "grad_accum_steps": micro_batches}
            yield Layout(**{"sequence_parallel": mesh["tp_size"] > 1, **order, **mesh, **options})

    def memory(self, layout: Layout) -> Breakdown:
        """Return the bytes of the stage that needs most."""
        known = {"seq_len": self.seq_len, "recipe": self.recipe, "experts": self.experts}
        answers = (
            memory(self.shape, layout, **known, stage=stage)
            for stage in decisive_stages(layout, self.experts)
        )
        return max(answers, key=lambda answer: answer.total)

    def costed(self, layout: Layout, size: Breakdown, *, fits: bool) -> RankedLayout:
        """Return a layout with its time."""
        known = {"seq_len": self.seq_len, "experts": self.experts}
        step = step_seconds(self.shape, layout, self.cluster, **known, recipe=self.recipe)
        mfu = predicted_mfu(self.shape, layout, self.cluster, **known, seconds=step.total)
        return RankedLayout(layout, "", size, step, mfu, fits)


def _divisors(number: int, limit: int) -> list[int]:
    return [n for n in range(1, min(number, limit) + 1) if number % n == 0]


def _cannot_share(sequences: int, groups: int) -> str:
    return f"a batch of {sequences} sequences does not divide among {groups} groups of ranks"


def _order(each: RankedLayout) -> tuple[int, float]:
    if each.memory is None:
        return 2, each.layout.tp_size
    return (0, each.seconds) if each.fits else (1, each.bytes)
