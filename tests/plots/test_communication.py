"""What the figures of communication show is what they were given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from coursekit.plots import course_style, plot_bytes_sent, plot_timeline


@pytest.fixture
def ax():
    mpl.use("agg")
    with course_style():
        fig, ax = plt.subplots()
        yield ax
        plt.close(fig)


def bars(ax):
    """Return each row's bars as (start, end), from the drawn rectangles."""
    boxes = [[path.get_extents() for path in collection.get_paths()] for collection in ax.collections]
    return [[(box.x0, box.x1) for box in row] for row in boxes]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_timeline_draws_each_span_in_its_row(ax):
    rows = {"backward": [(0.0, 120.0)], "two buckets": [(60.0, 16.0), (120.0, 16.0)]}
    assert plot_timeline(rows, ax=ax) is ax
    np.testing.assert_allclose(bars(ax)[0], [(0.0, 120.0)], rtol=1e-12)
    np.testing.assert_allclose(bars(ax)[1], [(60.0, 76.0), (120.0, 136.0)], rtol=1e-12)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["backward", "two buckets"]


def test_a_timeline_writes_when_each_row_ends_and_names_its_marks(ax):
    plot_timeline({"a": [(0.0, 3.0)], "b": [(5.0, 4.0), (1.0, 2.0)]}, ax=ax, marks={"deadline": 7.0})
    assert texts(ax) == ["3", "9", "deadline"], "the row's end is its latest, whatever the order of its spans"
    assert [line.get_xdata()[0] for line in ax.lines] == [7.0]


def test_the_first_row_of_a_timeline_is_at_the_top(ax):
    plot_timeline({"first": [(0, 1)], "second": [(0, 1)]}, ax=ax)
    bottom, top = ax.get_ylim()
    assert bottom > 1 > 0 > top


def test_bytes_sent_draws_theory_as_lines_and_counts_as_points(ax):
    sent = {"all to all": [1.0, 3.0, 7.0], "ring": [1.0, 1.5, 1.75]}
    plot_bytes_sent([2, 4, 8], sent, ax=ax, counted={2: 1.0, 4: 1.5})
    lines = {line.get_label(): line for line in ax.lines}
    for name, values in sent.items():
        np.testing.assert_array_equal(lines[name].get_xdata(), [2, 4, 8])
        np.testing.assert_array_equal(lines[name].get_ydata(), values)
    points = lines["_counted"]
    assert (list(points.get_xdata()), list(points.get_ydata())) == ([2, 4], [1.0, 1.5])
    assert points.get_linestyle() == "None", "counts are points: nothing was counted between them"


def test_bytes_sent_is_logarithmic_and_names_every_line(ax):
    plot_bytes_sent([2, 1024], {"ring": [1.0, 2.0]}, ax=ax)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert texts(ax) == ["ring"]


def test_without_axes_the_figures_draw_on_the_current_ones(ax):
    plt.sca(ax)
    assert plot_timeline({"a": [(0, 1)]}) is ax
    ax.clear()
    assert plot_bytes_sent([2, 4], {"ring": [1.0, 1.5]}) is ax
