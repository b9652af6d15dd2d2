"""Figures of memory over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .style import PALETTE, line_style

MIB = 2**20


def plot_saved_bytes(timelines: Mapping[str, Sequence[int]], *, ax: Axes | None = None) -> Axes:
    """Return Axes with the bytes kept for backward over the course of one step, a line for each run.

    Runs that pass more often over smaller batches have more events, so each run's time goes from 0 to 1.

    Args:
        timelines: label → bytes after each save and release, as in `SavedTensors.timeline_bytes`.
        ax: where to draw; by default on a new figure.
    """
    ax = ax or plt.subplots()[1]
    colours = list(PALETTE.values())
    for index, (label, live_bytes) in enumerate(timelines.items()):
        progress = np.linspace(0, 1, len(live_bytes))
        style = {"color": colours[index % len(colours)], "ls": line_style(index), "label": label}
        ax.plot(progress, np.asarray(live_bytes) / MIB, **style)
    ax.set(xlabel="progress through one optimizer step", ylabel="kept for backward (MiB)", xlim=(0, 1))
    ax.set_ylim(bottom=0)
    return ax
