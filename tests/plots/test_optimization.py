"""Figures of optimization draw the arrays that they are given, and nothing outside the axes."""

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from coursekit.errors import InputError
from coursekit.plots import plot_curves, plot_gradient_noise, plot_loss_surface, plot_lr_sweep


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def line(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def bowl(w0, w1):
    return (w0 - 1) ** 2 + 10 * (w1 + 2) ** 2


def test_contours_follow_the_loss_and_the_path_is_drawn_where_it_went(ax):
    w0, w1 = np.linspace(-3, 5, 161), np.linspace(-6, 2, 121)
    path = np.array([[4.0, 1.0], [2.0, -1.0], [1.0, -2.0]])
    plot_loss_surface(ax, w0, w1, bowl(*np.meshgrid(w0, w1)), paths={"descent": path})
    assert np.array_equal(np.column_stack(line(ax, "descent").get_data()), path)
    contour = ax.collections[0]
    for level, segments in zip(contour.levels, contour.allsegs, strict=True):
        for segment in segments:
            # Interpolation between grid points 0.05 apart, not the contour's own place, sets the tolerance.
            np.testing.assert_allclose(bowl(*segment.T), level, atol=0.05)


def test_a_transposed_surface_is_refused_with_both_shapes(ax):
    w0, w1 = np.linspace(0, 1, 5), np.linspace(0, 1, 7)
    with pytest.raises(InputError, match=r"\(7, 5\).*\(5, 7\)"):
        plot_loss_surface(ax, w0, w1, np.zeros((5, 7)), paths={"p": np.zeros((1, 2))})


def test_a_run_that_overflowed_is_shown_at_the_upper_edge_and_not_dropped(ax):
    plot_lr_sweep(ax, [0.1, 0.2, 0.3], [1e-3, 1e5, np.inf], threshold=0.15, start_loss=1.0)
    assert line(ax, "_overflow").get_xydata().tolist() == [[0.3, 1e5]]
    assert line(ax, "_measured").get_xydata().tolist() == [[0.1, 1e-3], [0.2, 1e5]]
    assert set(line(ax, "_threshold").get_xdata()) == {0.15}
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_curves_carry_their_labels_in_place_of_a_legend(ax):
    plot_curves(ax, {"a": ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])}, target=0.5)
    assert sorted(text.get_text() for text in ax.texts) == ["a", "b"]
    assert ax.get_legend() is None
    assert line(ax, "a").get_linestyle() != line(ax, "b").get_linestyle()


def test_noise_points_and_theory_share_a_colour_and_differ_between_labels(ax):
    sizes, std = [1, 4, 16], {"one": np.array([4.0, 2.1, 1.0]), "two": np.array([3.0, 1.0, 0.1])}
    predicted = {"one": np.array([4.0, 2.0, 1.0]), "two": np.array([3.0, 1.1, 0.1])}
    plot_gradient_noise(ax, sizes, std, predicted=predicted)
    points = [drawn for drawn in ax.lines if drawn.get_label() == "_measured"]
    assert [p.get_ydata().tolist() for p in points] == [v.tolist() for v in std.values()]
    assert points[0].get_color() == line(ax, "one").get_color() != points[1].get_color()
