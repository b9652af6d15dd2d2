"""Graphs of operations: node names and edges in, Axes out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .style import GREY, PALETTE


def node_positions(num_nodes: int, edges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return (num_nodes, 2) positions x, y for an acyclic graph, y minus the longest path to the node.

    Every edge points down by at least one, so data flows from top to bottom. Within a row, nodes stand
    where their inputs are, at least 1 apart.

    Raises: ValueError if the edges form a cycle.

    >>> node_positions(3, [(0, 2), (1, 2)]).tolist()
    [[-0.5, 0.0], [0.5, 0.0], [0.0, -1.0]]
    """
    depth = _depths(num_nodes, edges)
    x = np.zeros(num_nodes)
    for row in range(depth.max(initial=0) + 1):
        nodes = np.flatnonzero(depth == row)
        wanted = [np.mean([x[a] for a, b in edges if b == n] or [0.0]) for n in nodes]
        order = np.argsort(wanted, kind="stable")
        x[nodes[order]] = _apart(np.asarray(wanted)[order])
    return np.stack([x, 0.0 - depth], axis=1)


def draw_graph(
    labels: Sequence[str],
    edges: Sequence[tuple[int, int]],
    *,
    edge_labels: Sequence[str] | None = None,
    highlight: Sequence[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw one box a node and one arrow an edge (from, to), inputs at the top; return the Axes.

    `edge_labels` stand beside the arrows; the nodes in `highlight` are filled.
    """
    ax = ax if ax is not None else plt.subplots()[1]
    places = node_positions(len(labels), edges)
    for index, (start, end) in enumerate(edges):
        (x0, y0), (x1, y1) = places[start], places[end]
        arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 13, "shrinkB": 13, "lw": 1.2}
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        if edge_labels is not None:
            # Nearer to the start, where arrows into one node still stand apart.
            x, y = x0 + 0.42 * (x1 - x0), y0 + 0.42 * (y1 - y0)
            ax.text(x + 0.04, y, edge_labels[index], fontsize=8.5, color=GREY, va="center")
    for index, (x, y) in enumerate(places):
        fill = "#DCEBF5" if index in set(highlight) else "white"
        box = {"boxstyle": "round,pad=0.35", "fc": fill, "ec": PALETTE["blue"], "lw": 1.2}
        ax.text(x, y, labels[index], ha="center", va="center", fontsize=9.5, bbox=box)
    ax.set(xlim=(places[:, 0].min() - 0.6, places[:, 0].max() + 0.75), ylim=(places[:, 1].min() - 0.45, 0.45))
    ax.axis("off")
    return ax


def _depths(num_nodes: int, edges: Sequence[tuple[int, int]]) -> np.ndarray:
    depth = np.zeros(num_nodes, dtype=int)
    for _ in range(num_nodes + 1):
        before = depth.copy()
        for start, end in edges:
            depth[end] = max(depth[end], depth[start] + 1)
        if (depth == before).all():
            return depth
    raise ValueError("the edges form a cycle: a data-flow graph has none")


def _apart(wanted: np.ndarray) -> np.ndarray:
    """Return sorted positions pushed at least 1 apart, centred on where they wanted to be."""
    placed = wanted.astype(float).copy()
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + 1.0)
    return placed + (wanted.mean() - placed.mean())
