"""Live bytes against hand counts."""

import torch
from torch import nn

from coursekit.train import measure_live_tensors


def test_forward_and_backward_of_a_layer_are_counted_with_their_gradients():
    layer, x = nn.Linear(10, 20, bias=False), torch.randn(5, 10)
    with measure_live_tensors() as live:
        loss = layer(x).exp().sum()
        assert live.live_bytes == 4 * (5 * 20 + 1)  # exp's output, kept for backward, and the loss
        loss.backward()
        assert live.live_bytes == 4 * (1 + 20 * 10)  # the loss, and a gradient that stays
    assert live.peak_bytes > live.live_bytes


def test_views_and_in_place_operations_are_no_new_memory():
    x = torch.zeros(8, 8)
    with measure_live_tensors() as live:
        x.add_(1)
        views = x.t(), x[1:], x.view(-1).detach()
        assert live.peak_bytes == 0
        made = torch.ones(4)
        made.mul_(2)
        views += made[1:], made.view(2, 2)
    assert (live.live_bytes, live.peak_bytes) == (16, 16)


def test_the_peak_is_the_most_at_one_time():
    with measure_live_tensors() as live:
        for _ in range(5):
            torch.ones(1000)
    assert (live.live_bytes, live.peak_bytes) == (0, 4000)


def test_a_view_keeps_the_whole_storage_alive():
    with measure_live_tensors() as live:
        row = torch.ones(100, 10)[0]
        assert live.live_bytes == 4000
        del row
        assert live.live_bytes == 0


def test_nothing_is_counted_after_the_block_but_release():
    with measure_live_tensors() as live:
        made = torch.ones(100)
    torch.ones(1000)
    assert live.live_bytes == 400
    del made
    assert (live.live_bytes, live.peak_bytes) == (0, 400)


def test_the_timeline_has_each_storage_made_and_dropped_in_order():
    with measure_live_tensors() as live:
        first = torch.ones(2)
        second = torch.ones(1)
        del first
    assert live.timeline_bytes == [0, 8, 12, 4]
    assert second.sum() == 1
