"""The figure of memory over a step shows the bytes that it was given."""

import matplotlib.pyplot as plt
import pytest

from coursekit.plots import plot_saved_bytes


def test_each_run_is_a_line_in_mib_from_the_start_to_the_end_of_the_step():
    ax = plot_saved_bytes({"one pass": [0, 4 * 2**20, 0], "pieces": [0, 2**20, 0, 2**20, 0]})
    one_pass, pieces = ax.get_lines()
    assert one_pass.get_ydata().tolist() == [0, 4, 0]
    assert pieces.get_xdata().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert [line.get_label() for line in ax.get_lines()] == ["one pass", "pieces"]
    plt.close(ax.figure)


def test_it_draws_on_given_axes():
    figure, ax = plt.subplots()
    assert plot_saved_bytes({"run": [0, 1]}, ax=ax) is ax
    assert ax.get_ylim()[0] == pytest.approx(0)
    plt.close(figure)
