"""The look of every figure: a colour-blind-safe palette, direct labels, the finding as the title."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

# Okabe and Ito's palette without its yellow, which cannot be read as a line on white.
PALETTE: Mapping[str, str] = MappingProxyType(
    {
        "blue": "#0072B2",
        "vermilion": "#D55E00",
        "green": "#009E73",
        "purple": "#CC79A7",
        "orange": "#E69F00",
        "sky": "#56B4E9",
        "black": "#000000",
    }
)
GREY = "#6B6B6B"

_LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
_RC = {
    "figure.figsize": (7.0, 4.0),  # inches
    "figure.dpi": 120,  # 840 pixels: wider than the text column, so phones and sharp screens get enough
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "figure.facecolor": "white",  # own background: readable on a dark page as well
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.prop_cycle": mpl.cycler(color=list(PALETTE.values())),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "font.size": 10.5,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "image.cmap": "viridis",
    "svg.hashsalt": "coursekit",  # the same figure gives the same bytes
}


def use_style() -> None:
    """Set the course's look for every later figure of this process."""
    mpl.rcParams.update(_RC)


@contextmanager
def course_style() -> Iterator[None]:
    """Set the course's look inside a `with` block and restore what was there."""
    with mpl.rc_context(_RC):
        yield


def line_style(index: int) -> object:
    """Return the dash pattern of line number `index`, so that lines differ in black and white as well."""
    return _LINE_STYLES[index % len(_LINE_STYLES)]


def text_color(color: str) -> str:
    """Return `color` darkened until small text in it has a contrast of at least 4.5 : 1 on white.

    Source: Web Content Accessibility Guidelines 2.2, success criterion 1.4.3.

    >>> text_color("#000000"), text_color("#0072B2")
    ('#000000', '#0072b2')
    """
    rgb = np.array(to_rgb(color))
    while contrast_on_white(to_hex(rgb)) < 4.5:
        rgb = rgb * 0.95
    return to_hex(rgb)


def contrast_on_white(color: str) -> float:
    """Return the contrast ratio of `color` against white, from 1 (white) to 21 (black).

    Source: Web Content Accessibility Guidelines 2.2, relative luminance.

    >>> round(contrast_on_white("#000000"), 6), round(contrast_on_white("#FFFFFF"), 6)
    (21.0, 1.0)
    """
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05))


def finding(ax: Axes, text: str) -> Axes:
    """Set the title of `ax` to what the figure shows, wrapped to the width of the axes, and return `ax`."""
    size_points = mpl.font_manager.FontProperties(size=mpl.rcParams["axes.titlesize"]).get_size_in_points()
    width_points = ax.get_window_extent().width / ax.figure.dpi * 72
    # A bold sans-serif letter is about 0.56 of its size wide.
    ax.set_title(
        "\n".join(textwrap.wrap(text, max(20, int(width_points / (0.56 * size_points))))), loc="left"
    )
    return ax


def label_lines(ax: Axes, *, gap_points: float = 12.0) -> Axes:
    """Write each line's label beside its last visible point, in its colour, and return `ax`.

    Call it after the data, scales and limits are set. Labels that would touch are moved apart vertically to
    at least `gap_points`. Lines without a label (or with one that starts with "_") are left alone.
    """
    ends = [(line, end) for line in ax.lines if (end := _last_visible(ax, line)) is not None]
    ends = [(line, end) for line, end in ends if not str(line.get_label()).startswith("_")]
    if not ends:
        return ax
    to_points = 72 / ax.figure.dpi
    heights = [ax.transData.transform(end)[1] * to_points for _, end in ends]
    for (line, end), height, target in zip(ends, heights, spread(heights, gap_points), strict=True):
        ax.annotate(
            str(line.get_label()),
            end,
            xytext=(5, target - height),
            textcoords="offset points",
            va="center",
            color=text_color(to_hex(line.get_color())),
            annotation_clip=False,
        )
    return ax


def spread(heights: list[float], gap: float) -> list[float]:
    """Return heights in the same order, at least `gap` apart, each group centred on where it was.

    >>> spread([0.0, 1.0, 50.0], 10.0)
    [-4.5, 5.5, 50.0]
    """
    order = np.argsort(heights, kind="stable")
    groups: list[list[float]] = []  # [centre, members]
    for height in np.asarray(heights, float)[order]:
        groups.append([float(height), 1.0])
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], gap):
            (c2, n2), (c1, n1) = groups.pop(), groups.pop()
            groups.append([(c1 * n1 + c2 * n2) / (n1 + n2), n1 + n2])
    placed = [c + gap * (k - (n - 1) / 2) for c, n in groups for k in range(int(n))]
    result = np.empty(len(heights))
    result[order] = placed
    return result.tolist()


def _overlap(below: list[float], above: list[float], gap: float) -> bool:
    """Return whether two groups of labels come closer than `gap`; a group is [centre, number of labels]."""
    return above[0] - below[0] < gap * (below[1] + above[1]) / 2


def _last_visible(ax: Axes, line: Line2D) -> tuple[float, float] | None:
    """Return the last finite point of `line` inside the axes' limits, or None."""
    x, y = (np.asarray(v, dtype=float) for v in (line.get_xdata(), line.get_ydata()))
    (x0, x1), (y0, y1) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    inside = np.isfinite(x) & np.isfinite(y) & (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    if not inside.any() or line.get_transform() != ax.transData:
        return None
    last = np.flatnonzero(inside)[-1]
    return float(x[last]), float(y[last])
