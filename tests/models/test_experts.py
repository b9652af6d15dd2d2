"""Stacked experts and their queues against numpy, one row at a time, in float64; no coursekit code."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coursekit.models import GPTConfig
from coursekit.models.experts import Experts, weighted_sum

RTOL = 1e-12
E, D = 3, 4
GELU = GPTConfig(vocab_size=13, max_seq_len=8, d_model=D, n_layers=2, n_heads=2, d_ff=5)
SWIGLU = dataclasses.replace(GELU, activation="swiglu", bias=False)
both = pytest.mark.parametrize("config", [GELU, SWIGLU], ids=["gelu", "swiglu"])


def experts_of(config=GELU):
    """Float64 experts whose weights are large enough to be curved, and whose biases are not zero."""
    torch.manual_seed(0)
    experts = Experts(config, E).double()
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return experts


def rows_of(m, seed=1):
    return torch.randn(m, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def queued(numbers):
    """Place of each row in its expert's queue: how many of the rows before it have the same expert."""
    return [numbers[:k].count(number) for k, number in enumerate(numbers)]


def reference_row(weights, row, i):
    """The oracle: what expert i makes of one row."""

    def linear(x, name):
        bias = weights.get(f"{name}_bias")
        return x @ weights[f"{name}_proj"][i] + (0 if bias is None else bias[i, 0])

    inside = linear(row, "up")
    if "gate_proj" in weights:
        gate = linear(row, "gate")
        return linear(gate / (1 + np.exp(-gate)) * inside, "down")
    curve = np.tanh(math.sqrt(2 / math.pi) * (inside + 0.044715 * inside**3))
    return linear(0.5 * inside * (1 + curve), "down")


def reference_run(experts, rows, numbers, places, room, *, defect=""):
    """The outputs of all rows, those beyond the room 0."""
    weights = {name: p.detach().numpy() for name, p in experts.named_parameters()}
    room += defect == "one place too many"
    outputs = [np.zeros(D) for _ in numbers]
    for k, place in enumerate(places):
        if place < room:
            expert = place % E if defect == "expert by place" else numbers[k]
            outputs[k] = reference_row(weights, rows[k].numpy(), expert)
    if defect == "left in the order of experts":
        outputs = [outputs[k] for k in np.argsort(numbers, kind="stable")]
    return torch.from_numpy(np.stack(outputs))


@both
@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, E - 1), min_size=1, max_size=12), st.integers(1, 6))
def test_queues_equal_one_row_at_a_time(config, numbers, room):
    experts, rows, places = experts_of(config), rows_of(len(numbers)), queued(numbers)
    got = experts.run(rows, torch.tensor(numbers), torch.tensor(places), room)
    want = reference_run(experts, rows, numbers, places, room)
    torch.testing.assert_close(got, want, rtol=RTOL, atol=1e-13)


NUMBERS = [1, 0, 1, 2, 1, 0, 1]  # expert 1 has four rows


@pytest.mark.parametrize("defect", ["one place too many", "expert by place", "left in the order of experts"])
def test_control_the_oracle_rejects(defect):
    experts, rows, places = experts_of(), rows_of(7), queued(NUMBERS)
    got = experts.run(rows, torch.tensor(NUMBERS), torch.tensor(places), 3)
    torch.testing.assert_close(got, reference_run(experts, rows, NUMBERS, places, 3), rtol=RTOL, atol=1e-13)
    wrong = reference_run(experts, rows, NUMBERS, places, 3, defect=defect)
    assert not torch.allclose(got, wrong, rtol=1e-3, atol=1e-3)


class Run(torch.nn.Module):
    """`Experts.run` as a forward pass, for `functional_call`."""

    def __init__(self, experts):
        super().__init__()
        self.experts = experts

    def forward(self, *arguments):
        return self.experts.run(*arguments)


@both
def test_gradients_equal_finite_differences(config):
    experts, rows, places = experts_of(config), rows_of(7).requires_grad_(), torch.tensor(queued(NUMBERS))
    names = [f"experts.{name}" for name, _ in experts.named_parameters()]

    def run(rows, *values):
        weights, arguments = dict(zip(names, values, strict=True)), (rows, torch.tensor(NUMBERS), places, 3)
        return torch.func.functional_call(Run(experts), weights, arguments)

    values = [p.detach().clone().requires_grad_() for p in experts.parameters()]
    assert torch.autograd.gradcheck(run, (rows, *values))


def test_a_row_that_finds_no_place_gives_nothing_and_gets_no_gradient():
    experts, rows, places = experts_of(), rows_of(7).requires_grad_(), torch.tensor(queued(NUMBERS))
    outputs = experts.run(rows, torch.tensor(NUMBERS), places, 3)
    outputs.sum().backward()
    dropped = places >= 3
    assert dropped.tolist() == [False] * 6 + [True]
    assert not outputs[dropped].any()
    assert not rows.grad[dropped].any()
    assert (rows.grad[~dropped] != 0).any(-1).all()


def test_an_expert_that_nobody_chose_gets_a_gradient_of_zeros():
    experts = experts_of()
    experts.run(rows_of(2), torch.tensor([0, 2]), torch.tensor([0, 0]), 2).sum().backward()
    for parameter in experts.parameters():
        assert not parameter.grad[1].any()
        assert parameter.grad[0].any()
        assert parameter.grad[2].any()


@both
def test_one_expert_alone_is_that_slice_of_all(config):
    experts, rows = experts_of(config), rows_of(5)
    together = experts.feed_forward(rows.expand(E, -1, -1))
    for i in range(E):
        torch.testing.assert_close(experts.feed_forward(rows, i), together[i], rtol=RTOL, atol=1e-14)


def test_a_generator_decides_the_weights_and_no_two_experts_are_alike():
    first, second = Experts(GELU, E), Experts(GELU, E)
    assert not torch.equal(first.up_proj, second.up_proj)
    for experts in (first, second):
        experts.init_weights(torch.Generator().manual_seed(5))
    for (name, p), q in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
        assert name.endswith("bias") or not torch.equal(p[0], p[1])


def test_the_sum_is_taken_in_the_wider_dtype():
    outputs = torch.tensor([[[1.0], [1.0]]], dtype=torch.bfloat16)
    gates = torch.tensor([[1.0, 2.0**-10]])  # bfloat16 has no number between 1 and 1 + 2⁻⁷
    assert weighted_sum(outputs, gates).item() == 1 + 2.0**-10
    assert weighted_sum(outputs, gates.bfloat16()).item() == 1
