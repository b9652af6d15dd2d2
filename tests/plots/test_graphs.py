"""Graphs flow downwards, without overlaps, and show every label."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coursekit.plots import draw_graph, node_positions


@st.composite
def acyclic_graphs(draw):
    num_nodes = draw(st.integers(1, 8))
    pairs = [(a, b) for a in range(num_nodes) for b in range(a + 1, num_nodes)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    shuffled = draw(st.permutations(range(num_nodes)))
    return num_nodes, [(shuffled[a], shuffled[b]) for a, b in edges]


@given(acyclic_graphs())
def test_every_edge_points_down_and_no_two_nodes_share_a_place(graph):
    num_nodes, edges = graph
    places = node_positions(num_nodes, edges)
    assert all(places[b, 1] <= places[a, 1] - 1 for a, b in edges)
    for i in range(num_nodes):
        for j in range(i):
            # Positions are moved as a whole after spacing: one rounding.
            assert np.abs(places[i] - places[j]).max() >= 1 - 1e-9


def test_a_cycle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        node_positions(2, [(0, 1), (1, 0)])


def test_a_drawn_graph_shows_every_label_and_every_edge():
    ax = draw_graph(["x", "w", "MatMul"], [(0, 2), (1, 2)], edge_labels=["(2, 3)", "(3, 4)"], highlight=[2])
    texts = [t.get_text() for t in ax.texts]
    assert {"x", "w", "MatMul", "(2, 3)", "(3, 4)"} <= set(texts)
    assert sum(t.arrow_patch is not None for t in ax.texts if hasattr(t, "arrow_patch")) == 2
    plt.close(ax.figure)
