"""Bytes that a device sends, and how long that takes."""

from __future__ import annotations

from typing import Any

from coursekit.errors import InputError
from coursekit.formulas import communication as formulas
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.calling import call
from coursekit.plan.layout import ExpertLayers, Layout, check_layout, stages_asked
from coursekit.plan.memory_per_device import known_values
from coursekit.plan.recipes import PrecisionRecipe


def communication(
    shape: Any,
    layout: Layout,
    *,
    seq_len: int,
    recipe: str | PrecisionRecipe = "mixed_16",
    experts: ExpertLayers | None = None,
    stage: int | None = None,
) -> Breakdown:
    """Return the bytes that a device sends in an optimizer step, by axis and operation.

    With ring algorithms, in the mean over the ranks of a ring; no algorithm sends less in an all-reduce.

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        layout: of the run; its `grad_accum_steps` micro-batches are one step.
        seq_len: tokens of a sequence.
        recipe: name or `PrecisionRecipe`: gradients travel in its `gradient_bytes_sent`, parameters and
            activations in its `activation_bytes`.
        experts: in the place of feed-forward layers; routing is taken to be even.
        stage: of the pipeline; None is the stage that sends most.

    Returns:
        data_all_reduce (of gradients, without ZeRO), data_reduce_scatter (of gradients), data_all_gather (of
        parameters), tensor (with sequence parallelism as well), context, expert, pipeline; parts that are 0
        are left out.
    Raises: InputError if the shape does not divide so.
    Source: each formula's in `coursekit.formulas.communication`.

    >>> from coursekit.models import preset
    >>> sent = communication(preset("llama3-8b"), Layout(dp_size=64), seq_len=8192)
    >>> print(sent)  # 2 bytes a gradient, nearly twice
    data_all_reduce  29.4 GiB  100%
    total            29.4 GiB  100%
    """
    check_layout(shape, layout, experts, seq_len)
    known = known_values(shape, layout, experts, recipe)
    stages = stages_asked(layout, stage)
    answers = [call(formulas.communication_on_rank, known, seq_len=seq_len, stage=s) for s in stages]
    parts = max(answers, key=lambda answer: sum(answer.values()))
    return Breakdown({name: value for name, value in parts.items() if value}, unit="bytes")


def communication_seconds(
    num_bytes: float, *, bandwidth_bytes_per_second: float, latency_seconds: float = 0, num_calls: float = 0
) -> float:
    """Return the time of sending `num_bytes` in `num_calls` messages: calls · latency + bytes / bandwidth.

    Args:
        num_bytes: that a device sends.
        bandwidth_bytes_per_second: of one device, one direction. Data sheets often give both together.
        latency_seconds: of a message; a ring's all-reduce is 2 (N - 1) of them, one after the other.
        num_calls: messages.
    Raises: InputError if there is no bandwidth.
    Source: Hockney 1994 (https://doi.org/10.1016/S0167-8191(06)80021-9).

    >>> communication_seconds(50e9, bandwidth_bytes_per_second=50e9)
    1.0
    """
    if not bandwidth_bytes_per_second > 0:
        raise InputError("no bandwidth", expected="bytes a second > 0", got=bandwidth_bytes_per_second)
    return formulas.communication_seconds(num_bytes, bandwidth_bytes_per_second, latency_seconds, num_calls)
