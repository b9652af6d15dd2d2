"""Saved bytes against hand counts of what each operation's backward needs."""

import torch
from torch import nn

from coursekit.train import measure_saved_tensors

FLOAT32_BYTES = 4


def test_a_two_layer_network_keeps_its_inputs_and_its_activations():
    rows, d_in, d_hidden = 32, 10, 50
    model = nn.Sequential(nn.Linear(d_in, d_hidden), nn.Tanh(), nn.Linear(d_hidden, 1))
    x = torch.randn(rows, d_in)
    with measure_saved_tensors(exclude=model.parameters()) as saved:
        y = model(x).sum()
    # First layer: its input. Tanh: its output, which the second layer keeps too: the same storage, once.
    assert saved.live_bytes == rows * (d_in + d_hidden) * FLOAT32_BYTES
    y.backward()
    assert saved.live_bytes == 0


def test_control_parameters_count_when_they_are_not_excluded():
    model, x = nn.Linear(10, 10), torch.randn(4, 10, requires_grad=True)
    with measure_saved_tensors() as with_weight:
        keep = model(x)
    with measure_saved_tensors(exclude=model.parameters()) as without:
        keep_too = model(x)
    assert with_weight.live_bytes - without.live_bytes == model.weight.nbytes
    assert keep.shape == keep_too.shape


def test_views_of_one_storage_count_once():
    x = torch.randn(8, 8, requires_grad=True)
    with measure_saved_tensors(exclude=[x]) as saved:
        hidden = x.exp()
        y = hidden[:4].square().sum() + hidden.T.square().sum()
    assert saved.live_bytes == hidden.untyped_storage().nbytes()
    assert saved.num_saved >= 3
    assert y.requires_grad


def test_the_peak_is_the_most_at_one_time_not_the_sum():
    x = torch.randn(1000, requires_grad=True)
    with measure_saved_tensors(exclude=[x]) as saved:
        for _ in range(5):
            x.exp().sum().backward()
    assert (saved.peak_bytes, saved.live_bytes) == (1000 * FLOAT32_BYTES, 0)
    assert saved.timeline_bytes == [0] + 5 * [1000 * FLOAT32_BYTES, 0]


def test_a_graph_that_is_dropped_without_backward_is_let_go():
    x = torch.randn(1000, requires_grad=True)
    with measure_saved_tensors(exclude=[x]) as saved:
        y = x.exp().sum()
        assert saved.live_bytes == 1000 * FLOAT32_BYTES
        del y
    assert saved.live_bytes == 0


def test_measuring_changes_no_gradient():
    model, x = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).double(), torch.randn(3, 4).double()
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with measure_saved_tensors(exclude=model.parameters()):
        model(x).square().sum().backward()
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))


def test_measuring_leaves_second_derivatives_right():
    x = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    with measure_saved_tensors(exclude=[x]):
        (first,) = torch.autograd.grad(x.exp().square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 4 * (2 * x.detach()).exp(), rtol=1e-12, atol=0)


def test_nothing_is_saved_without_grad():
    with torch.no_grad(), measure_saved_tensors() as saved:
        nn.Linear(4, 4)(torch.randn(2, 4))
    assert (saved.peak_bytes, saved.num_saved) == (0, 0)
