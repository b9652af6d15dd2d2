"""Figures of training as optimization: surfaces with paths, learning-rate sweeps, curves, gradient noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ..errors import InputError
from .style import GREY, PALETTE, label_lines, line_style


def plot_loss_surface(
    ax: Axes, w0: ArrayLike, w1: ArrayLike, loss: ArrayLike, *, paths: Mapping[str, ArrayLike]
) -> Axes:
    """Draw the contours of a loss over two parameters, and the paths that descend on it.

    Args:
        ax: where to draw.
        w0: grid values of the first parameter, shape (m,).
        w1: grid values of the second parameter, shape (n,).
        loss: the loss on the grid, shape (n, m), as `numpy.meshgrid(w0, w1)` lays it out.
        paths: label → the parameters after each step, shape (steps + 1, 2), the start first.
    Raises: InputError if `loss` does not fit the grid.
    """
    w0, w1, loss = (np.asarray(v, dtype=float) for v in (w0, w1, loss))
    if loss.shape != (len(w1), len(w0)):
        raise InputError("loss does not fit the grid", expected=(len(w1), len(w0)), got=loss.shape)
    low, high = loss.min(), loss.max()
    # Levels at squares are evenly spaced in distance from the minimum of a quadratic bowl.
    levels = low + (high - low) * np.linspace(0.02, 1, 14) ** 2
    ax.contour(w0, w1, loss, levels=levels, colors="#B8B8B8", linewidths=0.8)
    for index, (label, path) in enumerate(paths.items()):
        x, y = np.asarray(path, dtype=float).T
        color = list(PALETTE.values())[index % len(PALETTE)]
        ax.plot(x, y, color=color, ls=line_style(index), marker=".", ms=5, lw=1.3, label=label)
    start = np.asarray(next(iter(paths.values())), dtype=float)[0]
    ax.plot(*start, marker="o", ms=8, color="white", mec="black", zorder=3, label="_start")
    ax.set(xlim=(w0.min(), w0.max()), ylim=(w1.min(), w1.max()))
    return ax


def plot_lr_sweep(
    ax: Axes,
    lrs: ArrayLike,
    losses: ArrayLike,
    *,
    threshold: float,
    predicted: ArrayLike | None = None,
    start_loss: float | None = None,
) -> Axes:
    """Draw the loss after a fixed number of steps against the learning rate, both axes logarithmic.

    Args:
        ax: where to draw.
        lrs: learning rates, shape (k,).
        losses: the loss after the steps, shape (k,); one that is not finite is drawn at the upper edge.
        threshold: the learning rate at which descent is predicted to diverge, drawn as a vertical line.
        predicted: the loss that theory gives at each learning rate, shape (k,), drawn as a line.
        start_loss: the loss before the first step, drawn as a horizontal line.
    """
    lrs, losses = np.asarray(lrs, dtype=float), np.asarray(losses, dtype=float)
    finite = np.isfinite(losses)
    if predicted is not None:
        ax.plot(lrs, predicted, color=GREY, lw=1.4, label="_predicted", zorder=1)
    ax.plot(lrs[finite], losses[finite], "o", color=PALETTE["blue"], ms=5, label="_measured")
    top = losses[finite].max()
    ax.plot(lrs[~finite], np.full((~finite).sum(), top), "^", color=PALETTE["vermilion"], label="_overflow")
    ax.axvline(threshold, color=PALETTE["vermilion"], ls="--", label="_threshold")
    if start_loss is not None:
        ax.axhline(start_loss, color="black", lw=0.8, ls=":", label="_start")
    ax.set(xscale="log", yscale="log", xlabel="learning rate (log scale)")
    return ax


def plot_curves(
    ax: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, target: float | None = None
) -> Axes:
    """Draw labelled curves, each in its own colour and dash, with the label at its end.

    Args:
        ax: where to draw; set its scales and limits before the call.
        curves: label → (x, y), each of shape (k,).
        target: a level to reach, drawn as a horizontal line.
    """
    for index, (label, (x, y)) in enumerate(curves.items()):
        color = list(PALETTE.values())[index % len(PALETTE)]
        ax.plot(np.asarray(x), np.asarray(y), color=color, ls=line_style(index), label=label)
    if target is not None:
        ax.axhline(target, color="black", lw=0.8, ls=":", label="_target")
    return label_lines(ax)


def plot_gradient_noise(
    ax: Axes, batch_sizes: Sequence[int], stds: Mapping[str, ArrayLike], *, predicted: Mapping[str, ArrayLike]
) -> Axes:
    """Draw the standard deviation of the mini-batch gradient against the batch size, both logarithmic.

    Args:
        ax: where to draw.
        batch_sizes: examples a batch, shape (k,).
        stds: label → measured standard deviations, shape (k,), drawn as points.
        predicted: label → what theory gives, shape (k,), drawn as lines under the points of the same label.
    """
    ax.set(xscale="log", yscale="log", xlabel="batch size, examples (log scale)")
    for index, (label, std) in enumerate(stds.items()):
        color = list(PALETTE.values())[index % len(PALETTE)]
        ax.plot(batch_sizes, np.asarray(predicted[label]), color=color, ls=line_style(index), label=label)
        ax.plot(batch_sizes, np.asarray(std), "o", color=color, ms=5, label="_measured")
    return label_lines(ax)
