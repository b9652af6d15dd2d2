"""Bytes that a device needs."""

from __future__ import annotations

from typing import Any

from coursekit.formulas.memory import memory_on_rank
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.calling import call
from coursekit.plan.layout import ExpertLayers, Layout, check_layout, scalars, stages_asked
from coursekit.plan.recipes import PrecisionRecipe, as_recipe


def memory(
    shape: Any,
    layout: Layout | None = None,
    *,
    seq_len: int,
    recipe: str | PrecisionRecipe = "mixed_16",
    experts: ExpertLayers | None = None,
    stage: int | None = None,
) -> Breakdown:
    """Return the bytes that a device needs at its worst moment, by part.

    An upper estimate where gradients are freed between micro-batches, since they and the activations
    are then not there in full at once. Not in it: the CUDA context (about half a GiB), the
    allocator's fragmentation, communication libraries.

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        layout: of the run; None is one device.
        seq_len: tokens of a sequence.
        recipe: name or `PrecisionRecipe`.
        experts: in the place of feed-forward layers.
        stage: of the pipeline; None is the stage that needs most.

    Returns:
        parameters, gradients, optimizer_states (master weights and moments), activations, logits (the
        float32 log-probabilities that the loss keeps), buffers (whole parameters that ZeRO-3 gathers; two
        more tensors of the logits' size while the loss's gradient is computed; or, if that is more, the
        head's fresh gradient, or with full checkpointing the layer that is computed again).
    Raises: InputError if the shape does not divide so.
    Source: Rajbhandari et al. 2020 (https://arxiv.org/abs/1910.02054) for the state, Korthikanti et al.
        2022 (https://arxiv.org/abs/2205.05198) for the activations.

    >>> from coursekit.models import preset
    >>> print(memory(preset("llama3-8b"), Layout(dp_size=64, zero_stage=3), seq_len=8192))
    parameters         239 MiB    0%
    gradients          239 MiB    0%
    optimizer_states  1.40 GiB    2%
    activations       43.2 GiB   70%
    logits            3.91 GiB    6%
    buffers           13.0 GiB   21%
    total             61.9 GiB  100%
    """
    layout = layout or Layout()
    check_layout(shape, layout, experts, seq_len)
    stages = stages_asked(layout, stage)
    answers = [
        Breakdown(
            call(memory_on_rank, known_values(shape, layout, experts, recipe), seq_len=seq_len, stage=s),
            "bytes",
        )
        for s in stages
    ]
    return max(answers, key=lambda answer: answer.total)


def known_values(
    shape: Any, layout: Layout, experts: ExpertLayers | None, recipe: str | PrecisionRecipe
) -> dict[str, Any]:
    """Return shape, layout, experts and recipe as keyword arguments of the formulas."""
    chosen = as_recipe(recipe)
    return scalars(shape, layout, experts) | {
        "param_bytes": chosen.param_bytes,
        "gradient_bytes": chosen.gradient_bytes,
        "optimizer_bytes": chosen.optimizer_bytes,
        "activation_bytes": chosen.activation_bytes,
        "residual_bytes": chosen.residual_bytes,
        "gradient_bytes_sent": chosen.gradient_bytes_sent,
        "weight_bytes_sent": chosen.activation_bytes,
    }
