"""How many parameters, and where they are."""

from __future__ import annotations

from typing import Any

from coursekit.formulas.parameters import parameters_on_rank
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.calling import call
from coursekit.plan.layout import ExpertLayers, Layout, scalars


def parameters(shape: Any, *, experts: ExpertLayers | None = None) -> Breakdown:
    """Return the parameters of a model by part; the total is `coursekit.models.num_params`.

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        experts: in the place of feed-forward layers; None is a dense model.
    Returns: embeddings, attention, feed_forward, norms, head; with experts also experts and routers.
    Source: see `coursekit.models.num_params`.

    >>> from coursekit.models import preset
    >>> print(parameters(preset("llama3-8b")))
    embeddings     525 M    7%
    attention     1.34 B   17%
    feed_forward  5.64 B   70%
    norms          266 K    0%
    head           525 M    7%
    total         8.03 B  100%
    """
    known = scalars(shape, Layout(), experts)
    parts = call(parameters_on_rank, known, stage=0)
    parts["norms"] += parts.pop("final_norm")
    if experts is None:
        del parts["experts"], parts["routers"]
    return Breakdown(parts, unit="parameters")
