"""How a run is laid out over devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

from coursekit.errors import InputError, check_whole
from coursekit.formulas import batch

Checkpointing = Literal["none", "selective", "full"]
AttentionKernel = Literal["flash", "materialized"]
PipelineOrder = Literal["gpipe", "1f1b", "interleaved"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of the axes, and what else decides memory and communication; the default is one device.

    Args:
        dp_size: copies of the model, each with another part of the batch.
        tp_size: parts of every matrix.
        pp_size: pipeline ranks.
        cp_size: parts of a sequence.
        ep_size: parts of a layer's experts; these ranks have tokens of their own, as if they were dp.
        zero_stage: what dp, cp and ep ranks shard: 0 nothing, 1 optimizer state, 2 gradients as well, 3
            parameters as well.
        sequence_parallel: whether the hidden states between the matrices are divided over the tp ranks.
        micro_batch_size: sequences per forward pass and data-parallel rank.
        grad_accum_steps: micro-batches a step; those of the pipeline, if there is one.
        checkpointing: "none"; "selective" computes attention scores again; "full" keeps layers' inputs alone.
        attention: "flash" never stores the (t, t) scores, "materialized" does.
        schedule: of the pipeline, "gpipe", "1f1b" or "interleaved".
        stages_per_rank: v, of an interleaved schedule.
    Raises: InputError for sizes that are no whole numbers of 1 or more, and unknown names.

    >>> Layout(dp_size=16, tp_size=8, pp_size=4).world_size
    512
    """

    dp_size: int = 1
    tp_size: int = 1
    pp_size: int = 1
    cp_size: int = 1
    ep_size: int = 1
    zero_stage: int = 0
    sequence_parallel: bool = False
    micro_batch_size: int = 1
    grad_accum_steps: int = 1
    checkpointing: Checkpointing = "none"
    attention: AttentionKernel = "flash"
    schedule: PipelineOrder = "1f1b"
    stages_per_rank: int = 1

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if name.endswith(("_size", "_steps", "_per_rank")) and (type(size) is not int or size < 1):
                check_whole(f"wrong {name}", **{name: size})  # not of each: a ranking makes 100,000 layouts
        if self.zero_stage not in (0, 1, 2, 3):
            raise InputError("no such stage of ZeRO", expected="0, 1, 2 or 3", got=self.zero_stage)
        names = ("checkpointing", Checkpointing), ("attention", AttentionKernel), ("schedule", PipelineOrder)
        for name, options in names:
            if (got := getattr(self, name)) not in get_args(options):
                expected = " or ".join(map(repr, get_args(options)))
                raise InputError(f"unknown {name}", expected=expected, got=repr(got))
        if self.stages_per_rank > 1 and (self.schedule != "interleaved" or self.pp_size == 1):
            raise InputError(
                "several stages a rank are an interleaved pipeline's",
                expected='schedule="interleaved" and pp_size of 2 or more',
                got=f"schedule={self.schedule!r}, pp_size={self.pp_size}",
            )

    @property
    def world_size(self) -> int:
        """Devices: the product of the five axes."""
        return batch.world_size(self.dp_size, self.tp_size, self.pp_size, self.cp_size, self.ep_size)

    @property
    def global_batch_size(self) -> int:
        """Sequences of an optimizer step."""
        return batch.global_batch_size(
            self.dp_size, self.ep_size, self.micro_batch_size, self.grad_accum_steps
        )


@dataclasses.dataclass(frozen=True)
class ExpertLayers:
    """Experts in the place of feed-forward layers.

    Args:
        n_experts: E, routed experts of a layer.
        top_k: k, of these, that a token uses.
        every: 1 is all layers, 2 every second one.
        d_ff: width inside one expert; None is that of the model's feed-forward layer.
        n_shared: experts beside them that every token uses.
        first_dense: the model's first layers, which have a feed-forward layer instead.
    Raises: InputError for numbers that cannot be.
    Source: Jiang et al. 2024, Mixtral (https://arxiv.org/abs/2401.04088); DeepSeek-AI 2024, DeepSeek-V3
        (https://arxiv.org/abs/2412.19437) for narrow and shared experts after dense layers.

    >>> ExpertLayers(256, top_k=8, d_ff=2048, n_shared=1, first_dense=3).top_k
    8
    """

    n_experts: int
    top_k: int = 2
    every: int = 1
    d_ff: int | None = None
    n_shared: int = 0
    first_dense: int = 0

    def __post_init__(self) -> None:
        check_whole("wrong experts", n_experts=self.n_experts, top_k=self.top_k, every=self.every)
        check_whole("wrong experts", least=0, n_shared=self.n_shared, first_dense=self.first_dense)
        if self.d_ff is not None:
            check_whole("wrong experts", d_ff=self.d_ff)
        if self.top_k > self.n_experts:
            raise InputError("wrong experts", expected=f"top_k up to {self.n_experts}", got=self.top_k)


SHAPE_NAMES = (
    *("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff"),
    *("norm", "activation", "position", "bias", "tie_embeddings"),
)
LATENT_NAMES = ("q_rank", "kv_rank", "nope_dim", "rope_dim", "v_dim")
"""Of a `coursekit.models.LatentConfig`; 0 in all other shapes."""


def scalars(shape: Any, layout: Layout | None = None, experts: ExpertLayers | None = None) -> dict[str, Any]:
    """Return shape, layout and experts as the keyword arguments of the formulas.

    Raises: InputError for a shape that is none, such as a model's name.
    """
    _check_shape(shape)
    values = {name: getattr(shape, name) for name in SHAPE_NAMES}
    values |= {name: getattr(shape, name, 0) for name in LATENT_NAMES}
    values["has_dropout"] = getattr(shape, "dropout", 0) > 0
    values |= dataclasses.asdict(layout or Layout())
    chosen = experts or ExpertLayers(1, 1, every=1)
    values |= {
        "n_experts": 0 if experts is None else chosen.n_experts,
        "experts_every": chosen.every,
        "expert_d_ff": chosen.d_ff or shape.d_ff,
        "n_shared_experts": chosen.n_shared,
        "first_dense_layers": chosen.first_dense,
        "top_k": chosen.top_k,
    }
    return values


def check_layout(shape: Any, layout: Layout, experts: ExpertLayers | None, seq_len: int) -> None:
    """Raise an InputError, which says what would divide, unless the shape can be laid out so."""
    _check_shape(shape)
    if not isinstance(layout, Layout):
        raise InputError("no layout", expected="a Layout", got=repr(layout))
    if type(seq_len) is not int or seq_len < 1:  # as above
        check_whole("no sequence", seq_len=seq_len)
    if layout.pp_size * layout.stages_per_rank > shape.n_layers:
        raise InputError(
            "fewer layers than pipeline stages",
            expected=f"pp_size up to {shape.n_layers // layout.stages_per_rank}",
            got=layout.pp_size,
        )
    if layout.schedule == "interleaved" and layout.grad_accum_steps % layout.pp_size:
        raise InputError(
            "an interleaved pipeline takes micro-batches in groups of as many as it has ranks",
            expected=f"grad_accum_steps that is a multiple of pp_size={layout.pp_size}",
            got=layout.grad_accum_steps,
        )
    divisions = [
        (size, getattr(shape, size), "tp_size", layout.tp_size) for size in ("n_heads", "n_kv_heads", "d_ff")
    ]
    if experts is not None:
        divisions.append(("the experts' d_ff", experts.d_ff or shape.d_ff, "tp_size", layout.tp_size))
        divisions.append(("n_experts", experts.n_experts, "ep_size", layout.ep_size))
    divisions.append(("seq_len", seq_len, "cp_size", layout.cp_size))
    if layout.sequence_parallel:
        divisions.append(("seq_len", seq_len // layout.cp_size, "tp_size", layout.tp_size))
    if layout.ep_size > 1 and experts is None:
        raise InputError("the model has no experts to divide", expected="ep_size 1", got=layout.ep_size)
    for what, number, axis, size in divisions:
        if number % size:
            raise InputError(
                f"{what} does not divide among the ranks", expected=f"{axis} that divides {number}", got=size
            )


def stages_asked(layout: Layout, stage: int | None) -> Sequence[int]:
    """Return the stages to look at: one, or all if it is None; raise InputError for one that is not there."""
    if stage is None:
        return range(layout.pp_size)
    check_whole("no such stage", least=0, stage=stage)
    if stage >= layout.pp_size:
        raise InputError("no such stage", expected=f"0 to {layout.pp_size - 1}", got=stage)
    return [stage]


def _check_shape(shape: Any) -> None:
    if not hasattr(shape, "n_layers"):
        fix = "coursekit.models.preset(name) has published ones; of a model give its config"
        raise InputError("no shape of a model", expected="a GPTConfig", got=repr(shape)[:80], fix=fix)
