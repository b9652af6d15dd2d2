"""The look of figures: colours that can be told apart, labels that do not touch, titles that fit."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

mpl.use("Agg")
import matplotlib.pyplot as plt

from coursekit.plots.style import (
    PALETTE,
    contrast_on_white,
    course_style,
    finding,
    label_lines,
    spread,
    text_color,
    use_style,
)

# Machado, Oliveira and Fernandes 2009, severity 1.0: what deuteranopes and protanopes see, in linear RGB.
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def smallest_distance(colors, sight):
    """Smallest distance of two of `colors` in CIELAB (units of just-noticeable differences, roughly 2.3)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(color):
        x, y, z = np.cbrt(to_xyz @ np.clip(sight @ linear(color), 0, 1) / [0.9505, 1.0, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    return min(np.linalg.norm(lab(a) - lab(b)) for a, b in itertools.combinations(colors, 2))


@pytest.fixture
def ax():
    with course_style():
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["full", "deutan", "protan"])
def test_every_pair_of_colours_can_be_told_apart(sight):
    assert smallest_distance(PALETTE.values(), sight) > 10


def test_the_distance_rejects_red_against_green_for_deuteranopes():
    red_green = ["#D62728", "#6C8000"]
    assert smallest_distance(red_green, np.eye(3)) > 60
    assert smallest_distance(red_green, DEUTERANOPIA) < 25


def test_label_colours_reach_the_contrast_of_small_text_and_the_raw_palette_does_not():
    assert all(contrast_on_white(text_color(color)) >= 4.5 for color in PALETTE.values())
    assert min(contrast_on_white(color) for color in PALETTE.values()) < 4.5


def test_style_restores_what_was_set_before():
    before = dict(mpl.rcParams)
    with course_style():
        assert mpl.rcParams["axes.spines.top"] is False
    assert dict(mpl.rcParams) == before


def test_use_style_gives_white_figures_wide_enough_for_the_text_column():
    with mpl.rc_context():
        use_style()
        figure = plt.figure()
        assert figure.get_facecolor() == (1, 1, 1, 1)
        assert figure.get_figwidth() * figure.dpi >= 800
        plt.close(figure)


def test_labels_of_lines_that_end_together_do_not_touch(ax):
    for k in range(4):
        ax.plot([0, 1], [0, 1 + k / 1000], label=f"run {k}")
    ax.set_ylim(0, 2)
    label_lines(ax)
    ax.figure.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_a_line_that_leaves_the_axes_is_labelled_at_its_last_visible_point(ax):
    ax.plot([0, 1, 2, 3], [1, 2, 1e9, np.nan], label="diverges")
    ax.plot([0, 3], [1, 1], label="_guide")
    ax.set_ylim(0, 5)
    label_lines(ax)
    assert [t.get_text() for t in ax.texts] == ["diverges"]
    assert ax.texts[0].xy == (1.0, 2.0)


def test_spread_keeps_order_and_gap():
    placed = spread([5.0, 0.0, 5.0, 100.0], 10.0)
    assert placed[1] < placed[0] < placed[2] < placed[3] == 100.0
    assert min(np.diff(sorted(placed))) >= 10.0 - 1e-9


def test_a_long_finding_wraps_inside_the_figure(ax):
    finding(ax, "Full-batch descent needs ten times the samples of stochastic descent to reach the same loss")
    ax.figure.canvas.draw()
    assert "\n" in ax.get_title(loc="left")
    box = next(t for t in (ax._left_title,)).get_window_extent()
    assert box.x1 <= ax.figure.bbox.x1
