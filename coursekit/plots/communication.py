"""Figures of distributed training: what each rank sends, and when the link is busy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .style import GREY, PALETTE, label_lines, line_style, text_color

_COLORS = [PALETTE["vermilion"], PALETTE["blue"], PALETTE["green"], PALETTE["purple"]]


def plot_bytes_sent(
    world_sizes: Sequence[int],
    sent: Mapping[str, Sequence[float]],
    *,
    counted: Mapping[int, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the bytes that one rank sends a step against the number of ranks, log-log, and return the Axes.

    Args:
        world_sizes: numbers of ranks.
        sent: name of an algorithm → its bytes at each of `world_sizes`, all in one unit.
        counted: number of ranks → bytes that were counted in a run; drawn as points.
        ax: where to draw; a new figure if None.
    """
    ax = plt.gca() if ax is None else ax
    for k, (name, values) in enumerate(sent.items()):
        ax.plot(world_sizes, values, color=_COLORS[k % len(_COLORS)], ls=line_style(k), label=name)
    if counted:
        ax.plot(list(counted), list(counted.values()), "o", color=PALETTE["black"], label="_counted")
        ax.annotate(
            "counted", (max(counted), counted[max(counted)]), xytext=(2, -14), textcoords="offset points"
        )
    ax.set(xscale="log", yscale="log", xlabel="number of ranks", ylabel="bytes sent per rank")
    ax.set_xlim(min(world_sizes) / 1.2, max(world_sizes) * 12)  # room for the names beside the lines
    lowest = min(min(values) for values in sent.values())
    ax.set_ylim(bottom=lowest / 2.5)  # room for "counted" below the points
    return label_lines(ax)


def plot_timeline(
    rows: Mapping[str, Sequence[tuple[float, float]]],
    *,
    marks: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one row of bars for each name, the first at the top, and return the Axes.

    Args:
        rows: name → (start, duration) of each bar, in one unit of time; its end is written beside it.
        marks: name → time of a vertical line across all rows.
        ax: where to draw; a new figure if None.
    """
    ax = plt.gca() if ax is None else ax
    for k, spans in enumerate(rows.values()):
        color = PALETTE["black"] if k == 0 else _COLORS[(k - 1) % len(_COLORS)]
        edge = 0.6 if len(spans) <= 50 else 0.0  # white edges would cover bars as thin as they are
        ax.broken_barh(list(spans), (k - 0.3, 0.6), facecolor=color, edgecolor="white", linewidth=edge)
        end = max(start + duration for start, duration in spans)
        ax.annotate(
            f"{end:.0f}",
            (end, k),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=text_color(color),
        )
    for name, time in (marks or {}).items():
        ax.axvline(time, color=GREY, ls=":", lw=1.2)
        ax.annotate(name, (time, -0.5), xytext=(-3, 0), textcoords="offset points", ha="right", va="bottom")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -1.1)
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)  # bars over the grid
    return ax
