"""How long an optimizer step takes on a cluster."""

from __future__ import annotations

from typing import Any

from coursekit.errors import InputError
from coursekit.formulas.step_time import step_on_rank
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.calling import call
from coursekit.plan.cluster import Cluster
from coursekit.plan.layout import ExpertLayers, Layout, check_layout, stages_asked
from coursekit.plan.memory_per_device import known_values
from coursekit.plan.operations import flops_per_token
from coursekit.plan.recipes import PrecisionRecipe


def step_seconds(
    shape: Any,
    layout: Layout,
    cluster: Cluster,
    *,
    seq_len: int,
    recipe: str | PrecisionRecipe = "mixed_16",
    experts: ExpertLayers | None = None,
    stage: int | None = None,
) -> Breakdown:
    """Return the seconds of an optimizer step, by what a device waits for.

    A model of the step, not a simulation: what overlaps is taken to overlap fully, and nothing is late. Good
    for choosing between layouts, and for absolute times as good as the cluster's `efficiency`.

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        layout: of the run, with as many devices as the cluster has.
        cluster: devices and networks.
        seq_len: tokens of a sequence.
        recipe: name or `PrecisionRecipe`.
        experts: in the place of feed-forward layers.
        stage: of the pipeline; None is the one that takes longest.

    Returns:
        compute, recompute (checkpointing), expert_weights (read for few tokens), tensor, context, expert and
        pipeline (network, waited for), bubble (of the pipeline), data (what the backward pass does not hide
        of gradients and ZeRO's parameters).
    Raises: InputError if the layout fits neither the shape nor the cluster.
    Source: `coursekit.formulas.step_time`.

    >>> from coursekit.models import preset
    >>> layout = Layout(dp_size=8, zero_stage=3, grad_accum_steps=4)
    >>> seconds = step_seconds(preset("llama3-8b"), layout, Cluster(), seq_len=8192)
    >>> seconds.unit, max(seconds, key=seconds.parts.get)
    ('seconds', 'compute')
    """
    if layout.world_size != cluster.num_devices:
        raise InputError(
            "the layout is not of this cluster",
            expected=f"sizes that multiply to {cluster.num_devices} devices",
            got=layout.world_size,
        )
    check_layout(shape, layout, experts, seq_len)
    known = known_values(shape, layout, experts, recipe) | cluster.scalars()
    stages = decisive_stages(layout, experts) if stage is None else stages_asked(layout, stage)
    answers = [call(step_on_rank, known, seq_len=seq_len, stage=s) for s in stages]
    return Breakdown(max(answers, key=lambda parts: sum(parts.values())), "seconds")


def decisive_stages(layout: Layout, experts: ExpertLayers | None = None) -> list[int]:
    """Return the stages of a pipeline of which one needs most memory and one most time.

    Stage 0 has the embedding and stores most micro-batches, stage 1 is the first to get one layer more where
    they do not divide, the last has head and loss. Those between are like stage 1, or need less. Where the
    model begins with layers without experts, it is the first stage after these.
    """
    early = 2 + (0 if experts is None else experts.first_dense)
    return sorted({*range(min(early, layout.pp_size)), layout.pp_size - 1})


def predicted_mfu(
    shape: Any,
    layout: Layout,
    cluster: Cluster,
    *,
    seq_len: int,
    seconds: float,
    experts: ExpertLayers | None = None,
) -> float:
    """Return the model FLOPs utilization of steps that take `seconds`, scores of attention included.

    Args:
        shape: of the model.
        layout: whose step it is.
        cluster: whose peak is compared with.
        seq_len: tokens of a sequence.
        seconds: of a step.
        experts: in the place of feed-forward layers; of these the work of those that a token uses.
    """
    flops = (
        flops_per_token(shape, seq_len=seq_len, experts=experts).total * layout.global_batch_size * seq_len
    )
    return flops / (seconds * layout.world_size * cluster.sheet.peak_flops_per_second)
