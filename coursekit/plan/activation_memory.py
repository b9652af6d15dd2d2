"""Bytes of activations by kind of tensor."""

from __future__ import annotations

from typing import Any

from coursekit.formulas.memory import activations_on_rank
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.calling import call
from coursekit.plan.layout import ExpertLayers, Layout, check_layout, stages_asked
from coursekit.plan.memory_per_device import known_values
from coursekit.plan.recipes import PrecisionRecipe


def activations(
    shape: Any,
    layout: Layout | None = None,
    *,
    seq_len: int,
    recipe: str | PrecisionRecipe = "mixed_16",
    experts: ExpertLayers | None = None,
    stage: int = 0,
) -> Breakdown:
    """Return the bytes of activations that a device keeps at most, by kind of tensor.

    Those of all layers of the stage and of all micro-batches that the pipeline's schedule stores, without the
    logits. Two models that differ by one in `n_layers` differ by one layer's activations. What
    `coursekit.train.measure_saved_tensors` counts of a `coursekit.models.GPT`; on the CPU torch's RMS norm
    is not fused and keeps two float32 numbers in the place of its input.

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        layout: of the run; None is one device.
        seq_len: tokens of a sequence.
        recipe: name or `PrecisionRecipe`; its `activation_bytes` and `residual_bytes` count.
        experts: in the place of feed-forward layers; routing is taken to be even.
        stage: of the pipeline; the first stores most.
    Returns: see `coursekit.formulas.memory.activations_on_rank`; parts that are 0 are left out.
    Raises: InputError if the shape does not divide so.
    Source: Korthikanti et al. 2022, section 4 and table 2 (https://arxiv.org/abs/2205.05198).

    >>> from coursekit.models import preset
    >>> flash = activations(preset("gpt2"), seq_len=1024)
    >>> stored = activations(preset("gpt2"), Layout(attention="materialized"), seq_len=1024)
    >>> (stored["scores"]) // 2**20, flash.total < stored.total
    (288.0, True)
    """
    layout = layout or Layout()
    check_layout(shape, layout, experts, seq_len)
    stages_asked(layout, stage)
    known = known_values(shape, layout, experts, recipe)
    parts = call(activations_on_rank, known, seq_len=seq_len, stage=stage)
    return Breakdown({name: value for name, value in parts.items() if value}, unit="bytes")
