"""Statistics and losses of a router against counting by hand, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coursekit.models import Router, Routing, load_balancing_loss, record_routing, router_z_loss
from coursekit.models.routing import queue_places


def routing_of(n=9, n_experts=4, top_k=2, seed=0, capacity_factor=None):
    torch.manual_seed(seed)
    router = Router(6, n_experts, top_k=top_k, capacity_factor=capacity_factor).double()
    x = torch.randn(n, 6, dtype=torch.float64)
    return router, x, router(x)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), max_size=30))
def test_a_place_counts_those_before_in_the_same_queue(experts):
    places = queue_places(torch.tensor(experts, dtype=torch.long), 5)
    assert places.tolist() == [experts[:i].count(expert) for i, expert in enumerate(experts)]


def test_loads_and_drops_are_counts():
    _, _, routing = routing_of(capacity_factor=0.5)  # ceil(0.5 · 9 · 2 / 4) = 3 places
    chosen = routing.experts.flatten().tolist()
    assert routing.capacity == 3
    assert routing.load.tolist() == [chosen.count(i) for i in range(4)]
    assert routing.num_dropped == sum(max(0, chosen.count(i) - 3) for i in range(4))
    assert routing.num_dropped == 18 - routing.kept.sum() > 0


def test_without_capacity_nothing_is_dropped():
    assert routing_of()[2].num_dropped == 0


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_gates_add_up_to_one_only_where_several_are_chosen(top_k):
    _, _, routing = routing_of(top_k=top_k)
    if top_k == 1:
        assert torch.equal(routing.gates[:, 0], routing.logits.softmax(-1).max(-1).values)
    else:
        torch.testing.assert_close(routing.gates.sum(-1), torch.ones(9, dtype=torch.float64))


def reference_loss(router, x, top_k):
    """The oracle: (loss, its gradient by W, by the softmax's derivative) with f a plain number."""
    weight = router.proj.weight.detach()
    n, n_experts = len(x), len(weight)
    counts, probabilities = [0] * n_experts, []
    for row in x:
        scores = (weight @ row).exp()
        probabilities.append(scores / scores.sum())
        for i in probabilities[-1].argsort(descending=True)[:top_k].tolist():
            counts[i] += 1
    shares = torch.tensor(counts, dtype=x.dtype) / (n * top_k)
    loss = n_experts * sum(shares[i] * sum(p[i] for p in probabilities) / n for i in range(n_experts))
    gradient = torch.zeros_like(weight)
    for row, p in zip(x, probabilities, strict=True):
        by_logits = n_experts / n * (p * shares - p * (p @ shares))
        gradient += torch.outer(by_logits, row)
    return loss, gradient


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_balancing_loss_and_its_gradient_equal_the_equations(top_k):
    router, x, routing = routing_of(top_k=top_k)
    loss = load_balancing_loss(routing)
    loss.backward()
    expected, gradient = reference_loss(router, x, top_k)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(router.proj.weight.grad, gradient, rtol=1e-12, atol=1e-15)


def test_control_shares_of_probability_instead_of_counts_give_another_gradient():
    """The famous bug: f replaced by something differentiable, such as the mean gate."""
    router, x, routing = routing_of(top_k=1)
    gates = torch.zeros_like(routing.logits).scatter(-1, routing.experts, routing.gates)
    probabilities = routing.logits.softmax(-1).mean(0)
    (4 * (gates.sum(0) / gates.sum() * probabilities).sum()).backward()
    _, gradient = reference_loss(router, x, 1)
    assert (router.proj.weight.grad - gradient).norm() > 0.1 * gradient.norm()


def routing_from(logits, top_k):
    gates, experts = logits.softmax(-1).topk(top_k)
    return Routing(logits, experts, gates, torch.zeros_like(experts), None)


def test_the_loss_is_one_if_even_and_e_over_k_if_always_the_same():
    even = routing_from(50 * torch.eye(4, dtype=torch.float64).repeat(3, 1), 1)
    assert load_balancing_loss(even).item() == pytest.approx(1, rel=1e-12)
    for top_k in (1, 2):
        always = torch.full((7, 4), -50.0, dtype=torch.float64)
        always[:, :top_k] = 50
        assert load_balancing_loss(routing_from(always, top_k)).item() == pytest.approx(4 / top_k, rel=1e-12)


def test_with_the_loads_of_all_parts_the_mean_of_their_losses_is_that_of_the_whole():
    router, x, whole = routing_of(n=8)
    parts = [router(half) for half in x.chunk(2)]
    total = sum(part.load for part in parts)
    losses = [load_balancing_loss(part, load=total) for part in parts]
    torch.testing.assert_close(sum(losses) / 2, load_balancing_loss(whole), rtol=1e-12, atol=0)
    own = sum(load_balancing_loss(part) for part in parts) / 2
    assert not torch.isclose(own, load_balancing_loss(whole), rtol=1e-3)  # the control: each with its own


def test_the_z_loss_is_the_mean_squared_log_of_the_partition_function():
    _, _, routing = routing_of()
    rows = [math.log(sum(math.exp(z) for z in row)) ** 2 for row in routing.logits.tolist()]
    assert router_z_loss(routing).item() == pytest.approx(sum(rows) / len(rows), rel=1e-12)


def test_nothing_is_recorded_outside_the_block():
    router, x, _ = routing_of()
    with record_routing(router) as routings:
        router(x)
        router(x)
    router(x)
    assert len(routings) == 2
