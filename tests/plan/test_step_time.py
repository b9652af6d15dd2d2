"""The time of a step: its parts one by one, by other routes than the formulas take."""

import dataclasses
import math

import pytest

from coursekit.errors import InputError
from coursekit.formulas.step_time import axis_bandwidth, hidden_seconds, ranks_in_node
from coursekit.models.presets import preset
from coursekit.parallel.mesh import axis_groups
from coursekit.plan.bytes_sent import communication
from coursekit.plan.cluster import Cluster
from coursekit.plan.layout import Layout
from coursekit.plan.memory_per_device import memory
from coursekit.plan.step_time import decisive_stages, predicted_mfu, step_seconds

LLAMA_8B = preset("llama3-8b")
SIZES = [(pp, dp, tp) for pp in (1, 2, 4) for dp in (1, 2, 4, 8) for tp in (1, 2, 4, 8)]


@pytest.mark.parametrize(("axis", "position"), [("pp", 0), ("dp", 1), ("tp", 2)])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_ranks_of_a_group_in_one_node_are_those_that_the_mesh_puts_there(axis, position, sizes):
    # The oracle lists the groups of the real mesh and counts, node by node.
    groups = axis_groups(axis, **dict(zip(("pp", "dp", "tp"), sizes, strict=True)))
    world_size = math.prod(sizes)
    node = min(8, world_size)
    counts = {sum(rank // node == groups[0][0] // node for rank in groups[0])}
    stride = math.prod(sizes[position + 1 :])
    assert {ranks_in_node(stride, sizes[position], node)} == counts


def test_a_ring_over_nodes_is_as_fast_as_the_adapters_that_it_has_in_one():
    assert axis_bandwidth(1, 8, 8, 450, 50) == 450
    assert axis_bandwidth(8, 4, 8, 450, 50) == 50
    assert axis_bandwidth(2, 16, 8, 450, 50) == 4 * 50
    assert axis_bandwidth(1, 16, 8, 300, 50) == 300
    assert axis_bandwidth(1, 3, 8, 450, 50) == 50  # some group of three lies on two nodes


def test_gradients_hide_behind_one_backward_pass_below_zero_2_and_behind_all_above():
    assert hidden_seconds(1.0, 4.0, 8, 0) == 0.5
    assert hidden_seconds(1.0, 4.0, 8, 2) == 1.0
    assert hidden_seconds(9.0, 4.0, 8, 3) == 4.0


def test_one_device_takes_the_operations_over_the_rate_and_waits_for_nothing():
    cluster = Cluster(1, 1)
    step = step_seconds(LLAMA_8B, Layout(grad_accum_steps=3), cluster, seq_len=8192)
    weights = 8_030_261_248 - 128_256 * 4096 - 65 * 4096  # all matrices but the embedding; no norms
    flops = 3 * 8192 * (6 * weights + 12 * 32 * 4096 * 8192)
    assert step.total == pytest.approx(flops / (989e12 * 0.6), rel=1e-12)
    assert step.total == step["compute"]
    assert predicted_mfu(
        LLAMA_8B, Layout(grad_accum_steps=3), cluster, seq_len=8192, seconds=step.total
    ) == pytest.approx(0.6, rel=1e-12)


def test_the_parts_are_the_bytes_of_each_axis_over_its_bandwidth():
    layout = Layout(dp_size=4, tp_size=4, pp_size=2, grad_accum_steps=8, zero_stage=1, sequence_parallel=True)
    cluster = Cluster(4, 8)
    for stage in (0, 1):
        step = step_seconds(LLAMA_8B, layout, cluster, seq_len=8192, stage=stage)
        sent = communication(LLAMA_8B, layout, seq_len=8192, stage=stage)
        assert step["tensor"] == pytest.approx(sent["tensor"] / 450e9, rel=1e-12)
        assert step["pipeline"] == pytest.approx(sent["pipeline"] / 50e9, rel=1e-12)
        busy = step["compute"] + step["tensor"] + step["pipeline"]
        assert step["bubble"] == pytest.approx(busy / 8, rel=1e-12)
        all_data = (sent["data_reduce_scatter"] + sent["data_all_gather"]) / 100e9  # two of four in a node
        assert step["data"] == pytest.approx(max(0, all_data - step["compute"] * 2 / 3 / 8), rel=1e-12)


def test_the_control_an_axis_on_the_slow_links_takes_longer():
    inside = Layout(tp_size=8, dp_size=2, grad_accum_steps=4)
    slow = dataclasses.replace(inside, tp_size=16, dp_size=1)
    shape = dataclasses.replace(LLAMA_8B, n_kv_heads=32)
    cluster = Cluster(2, 8, inter_bytes_per_second=10e9)
    fast, over_nodes = (
        step_seconds(shape, layout, cluster, seq_len=4096)["tensor"] for layout in (inside, slow)
    )
    # Half the micro-batches of twice the copies; 15/16 and 7/8 of the bytes; 80 GB/s instead of 450.
    assert over_nodes / fast == pytest.approx(15 / 16 / (7 / 8) * 450 / 80, rel=1e-3)


@pytest.mark.parametrize("pp_size", [1, 2, 3, 5, 16, 31])
@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
def test_three_stages_decide(pp_size, schedule):
    shape = preset("gpt2-xl")

    def largest(stages):
        return max(memory(shape, layout, seq_len=1024, stage=s).total for s in stages)

    layout = Layout(pp_size=pp_size, grad_accum_steps=8, schedule=schedule)
    cluster = Cluster(1, pp_size)

    def longest(stages):
        return max(step_seconds(shape, layout, cluster, seq_len=1024, stage=s).total for s in stages)

    assert longest(decisive_stages(layout)) == longest(range(pp_size))
    assert largest(decisive_stages(layout)) == largest(range(pp_size))


def test_a_layout_of_another_size_and_a_wrong_cluster_are_refused():
    with pytest.raises(InputError, match="multiply to 8 devices, got 4"):
        step_seconds(LLAMA_8B, Layout(dp_size=4), Cluster(), seq_len=8192)
    for wrong in ({"num_nodes": 0}, {"efficiency": 1.5}, {"inter_bytes_per_second": 0}, {"device": "abacus"}):
        with pytest.raises(InputError):
            Cluster(**wrong)
