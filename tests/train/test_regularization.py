"""Penalties against the optimizers that have them built in, smoothed labels against torch, stopping."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coursekit.errors import InputError
from coursekit.train import (
    IGNORE_INDEX,
    EarlyStopping,
    l1_penalty,
    l2_penalty,
    parameter_groups,
    smoothed_cross_entropy_naive,
)

EXACT = {"rtol": 1e-12, "atol": 1e-14}


def trained(make_optimizer, penalty=None):
    """Return the weights after ten steps on a fixed regression."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    optimizer = make_optimizer(model.parameters())
    inputs = torch.randn(8, 3, dtype=torch.float64)
    for _ in range(10):
        loss = (model(inputs) - 1).square().mean()
        (loss + penalty(model.parameters()) if penalty else loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_l2_penalty_is_weight_decay_of_sgd_and_adam(kind):
    expected = trained(lambda parameters: kind(parameters, lr=0.05, weight_decay=0.3))
    actual = trained(
        lambda parameters: kind(parameters, lr=0.05), lambda parameters: l2_penalty(parameters, 0.3)
    )
    torch.testing.assert_close(actual, expected, **EXACT)


def test_control_the_l2_penalty_is_not_adamws_decay():
    expected = trained(lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.3))
    actual = trained(
        lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.0),
        lambda parameters: l2_penalty(parameters, 0.3),
    )
    assert not torch.allclose(actual[0], expected[0], rtol=1e-2)


def test_control_without_the_half_the_l2_penalty_is_another_weight_decay():
    expected = trained(lambda parameters: torch.optim.SGD(parameters, lr=0.05, weight_decay=0.3))
    actual = trained(
        lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        lambda parameters: 2 * l2_penalty(parameters, 0.3),
    )
    assert not torch.allclose(actual[0], expected[0], rtol=1e-2)


def test_the_gradient_of_the_l1_penalty_is_the_sign():
    weight = nn.Parameter(torch.tensor([1.5, -2.0, 0.0], dtype=torch.float64))
    penalty = l1_penalty([weight], 0.3)
    penalty.backward()
    assert penalty.item() == pytest.approx(0.3 * 3.5, rel=1e-12)
    assert weight.grad.tolist() == [0.3, -0.3, 0.0]


def test_penalties_reach_the_chosen_parameters_only():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    decayed = parameter_groups(model, weight_decay=0.1)[0]["params"]
    (l1_penalty(decayed, 0.1) + l2_penalty(decayed, 0.1)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["0.weight"]


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_a_penalty_on_nothing_or_with_a_negative_weight_is_an_error(penalty):
    with pytest.raises(InputError, match="at least one parameter"):
        penalty([], 0.1)
    with pytest.raises(InputError, match="weight >= 0"):
        penalty([torch.ones(1)], -0.1)
    with pytest.raises(InputError, match=r"got Linear; give model\.parameters\(\)"):
        penalty(torch.nn.Linear(2, 2), 0.1)


@given(st.integers(1, 8), st.integers(2, 6), st.floats(0, 1), st.data())
def test_smoothed_cross_entropy_is_torchs(num_rows, num_classes, label_smoothing, data):
    generator = torch.Generator().manual_seed(num_rows * 100 + num_classes)
    logits = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64, requires_grad=True)
    label = st.one_of(st.just(IGNORE_INDEX), st.integers(0, num_classes - 1))
    labels = data.draw(st.lists(label, min_size=num_rows, max_size=num_rows))
    labels[0] = 0  # at least one is valid
    labels = torch.tensor(labels)
    losses = [
        smoothed_cross_entropy_naive(logits, labels, label_smoothing=label_smoothing),
        F.cross_entropy(logits, labels, label_smoothing=label_smoothing, ignore_index=IGNORE_INDEX),
    ]
    torch.testing.assert_close(*losses, **EXACT)
    torch.testing.assert_close(*[torch.autograd.grad(loss, logits)[0] for loss in losses], **EXACT)


def test_control_sharing_among_the_wrong_classes_only_differs():
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64), torch.tensor([0])
    log_p = logits.log_softmax(-1)
    wrong = -(log_p * torch.tensor([0.9, 0.05, 0.05])).sum()  # ε / (V − 1), as some codes have it
    assert not torch.isclose(
        wrong, smoothed_cross_entropy_naive(logits, labels, label_smoothing=0.1), rtol=1e-2
    )


def test_no_valid_label_is_nan_as_in_torch():
    logits, labels = torch.zeros(2, 3), torch.full((2,), IGNORE_INDEX)
    assert smoothed_cross_entropy_naive(logits, labels, label_smoothing=0.1).isnan()
    assert F.cross_entropy(logits, labels, label_smoothing=0.1).isnan()


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.1, math.nan])
def test_smoothing_outside_its_range_is_an_error(label_smoothing):
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        smoothed_cross_entropy_naive(torch.zeros(1, 2), torch.tensor([0]), label_smoothing=label_smoothing)


def stops_at(stopping, values):
    """Return the index of the value that ends the run, or None."""
    for step, value in enumerate(values):
        if stopping.update(value, step):
            return step


def test_it_stops_after_patience_evaluations_without_improvement():
    stopping = EarlyStopping(patience=3)
    assert stops_at(stopping, [5.0, 4.0, 4.5, 3.9, 4.0, 4.1, 3.9, 1.0]) == 6  # equal is no improvement
    assert (stopping.best, stopping.best_step, stopping.num_bad) == (3.9, 3, 3)


def test_accuracies_improve_upwards():
    stopping = EarlyStopping(patience=2, mode="max")
    assert stops_at(stopping, [0.5, 0.6, 0.55, 0.7, 0.7, 0.6]) == 5
    assert stopping.best_step == 3


def test_an_improvement_must_exceed_min_delta_over_the_best():
    stopping = EarlyStopping(patience=2, min_delta=0.5)
    assert stops_at(stopping, [4.0, 3.75, 3.25, 3.0, 2.75]) == 4
    assert stopping.best == 3.25


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("first", [True, False])
def test_nan_is_never_the_best(mode, first):
    stopping = EarlyStopping(patience=2, mode=mode)
    values = [math.nan, 1.0] if first else [1.0, math.nan]
    assert stops_at(stopping, values) is None
    assert stopping.best == 1.0
    assert stops_at(EarlyStopping(patience=2, mode=mode), [math.nan, math.nan]) == 1


def test_an_infinite_loss_is_not_the_best_but_an_infinite_gain_is():
    stopping = EarlyStopping(patience=2)
    stopping.update(math.inf, 0)
    assert stopping.best_step is None
    stopping.update(-math.inf, 1)
    assert stopping.best_step == 1


@given(st.lists(st.floats(-5, 5) | st.just(math.nan), max_size=20), st.integers(1, 4), st.integers(0, 20))
def test_a_resumed_run_stops_where_the_whole_one_does(values, patience, cut):
    whole, first, second = (EarlyStopping(patience, 0.1) for _ in range(3))
    expected = [whole.update(value, step) for step, value in enumerate(values)]
    actual = [first.update(value, step) for step, value in enumerate(values[:cut])]
    second.load_state_dict(first.state_dict())
    actual += [second.update(value, step) for step, value in enumerate(values[cut:], start=cut)]
    assert actual == expected
    assert second.state_dict() == whole.state_dict()


def test_a_metric_may_be_a_tensor():
    stopping = EarlyStopping(patience=1)
    stopping.update(torch.tensor(2.0, requires_grad=True), 0)
    assert stopping.best == 2.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patience": 0}, "patience >= 1"),
        ({"patience": 1, "min_delta": -1.0}, "min_delta >= 0"),
        ({"patience": 1, "mode": "lowest"}, "'min' or 'max', got 'lowest'"),
    ],
)
def test_settings_that_make_no_sense_are_errors(options, says):
    with pytest.raises(InputError, match=says):
        EarlyStopping(**options)
