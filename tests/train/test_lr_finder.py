"""The sweep leaves no trace, stops where the loss grows, and suggests by the rule it documents."""

import copy
import itertools
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.train import find_lr, get_rng_state, make_optimizer, seed_everything

MAKERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adamw": lambda parameters: make_optimizer("adamw", parameters, lr=0.1),
    "lr_tensor": lambda parameters: make_optimizer("adamw", parameters, lr=torch.tensor(0.1)),
}


def everything(model, optimizer):
    """Return a copy of all that may not change, with the names of what it is."""
    rng = get_rng_state()
    return copy.deepcopy(
        {
            "parameters": list(model.parameters()),
            "buffers": dict(model.named_buffers()),
            "gradients": [parameter.grad for parameter in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "optimizer": optimizer.state_dict(),
            "torch": rng["torch"],
            "python": rng["python"],
            "numpy": [np.asarray(part) for part in rng["numpy"][1:]],
        }
    )


def assert_same(first, second):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, np.ndarray):
        assert np.array_equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    else:
        assert first == second


def trained_a_little(make, *, keep_gradients):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    model.register_buffer("not_saved", torch.zeros(2), persistent=False)
    optimizer = make(model.parameters())
    step = step_of(model, optimizer)
    for _ in range(3):
        step()
    if not keep_gradients:
        optimizer.zero_grad()
    model[2].eval()
    return model, optimizer


def step_of(model, optimizer):
    in_place = itertools.cycle([True, False])  # the first step writes into the gradients that were there

    def step():
        model.train()
        optimizer.zero_grad(set_to_none=not next(in_place))
        random.random()
        np.random.rand()
        inputs = torch.randn(16, 3)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        model.not_saved = model.not_saved + 1
        return loss

    return step


@pytest.mark.parametrize("keep_gradients", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_model_optimizer_and_random_states_come_back_bit_for_bit(name, keep_gradients):
    model, optimizer = trained_a_little(MAKERS[name], keep_gradients=keep_gradients)
    before = everything(model, optimizer)
    identities = [id(parameter) for parameter in model.parameters()]
    sweep = find_lr(model, optimizer, train_step=step_of(model, optimizer), num_steps=20)
    assert len(sweep.losses) > 5
    assert_same(everything(model, optimizer), before)
    assert [id(parameter) for parameter in model.parameters()] == identities


def test_control_a_step_leaves_traces_everywhere():
    model, optimizer = trained_a_little(MAKERS["adamw"], keep_gradients=True)
    before = everything(model, optimizer)
    step_of(model, optimizer)()
    after = everything(model, optimizer)
    for name, value in before.items():
        with pytest.raises(AssertionError):
            assert_same(after[name], value)


def test_an_unused_optimizer_is_unused_again():
    model = nn.Linear(3, 1)
    optimizer = MAKERS["adamw"](model.parameters())
    model.not_saved = torch.zeros(1)
    find_lr(model, optimizer, train_step=step_of(model, optimizer), num_steps=3)
    assert not optimizer.state
    assert model.weight.grad is None


def test_a_learning_rate_in_a_tensor_is_the_same_tensor_after_it():
    model, optimizer = trained_a_little(MAKERS["lr_tensor"], keep_gradients=False)
    lr = optimizer.param_groups[0]["lr"]
    find_lr(model, optimizer, train_step=step_of(model, optimizer), num_steps=3)
    assert optimizer.param_groups[0]["lr"] is lr


def test_everything_comes_back_when_a_step_raises():
    model, optimizer = trained_a_little(MAKERS["adamw"], keep_gradients=True)
    before = everything(model, optimizer)
    step = step_of(model, optimizer)

    def failing():
        step()
        raise RuntimeError("out of data")

    with pytest.raises(RuntimeError, match="out of data"):
        find_lr(model, optimizer, train_step=failing)
    assert_same(everything(model, optimizer), before)


def scripted(losses):
    """Return find_lr's arguments for a run whose losses are given, and the learning rates it will see."""
    weight = nn.Parameter(torch.zeros(1))
    model = nn.ParameterList([weight])
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.1}], lr=1.0)
    seen, remaining = [], iter(losses)

    def step():
        seen.append(optimizer.param_groups[0]["lr"])
        return next(remaining)

    return (model, optimizer), step, seen


def test_learning_rates_rise_by_one_factor():
    arguments, step, seen = scripted([1.0] * 5)
    sweep = find_lr(*arguments, train_step=step, min_lr=1e-4, max_lr=1.0, num_steps=5)
    assert sweep.lrs == seen
    assert seen == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0], rel=1e-12)
    assert not sweep.diverged
    assert sweep.suggestion is None  # a flat loss suggests nothing


def test_the_suggestion_is_where_the_loss_falls_fastest():
    arguments, step, _ = scripted([5.0, 4.9, 4.5, 2.0, 1.8, 1.7, 3.0])
    sweep = find_lr(*arguments, train_step=step, min_lr=1e-6, max_lr=1.0, num_steps=7, smoothing=0.0)
    assert sweep.suggestion == pytest.approx(
        1e-4
    )  # losses[4] − losses[2] is −2.7, losses[3] − losses[1] is −2.9
    assert sweep.smoothed == sweep.losses


def test_a_fall_after_the_lowest_point_does_not_count():
    arguments, step, _ = scripted([2.0, 1.5, 1.0, 4.0, 3.9, 1.1, 1.05])
    sweep = find_lr(
        *arguments, train_step=step, min_lr=1e-6, max_lr=1.0, num_steps=7, smoothing=0.0, divergence_factor=9
    )
    assert sweep.suggestion == pytest.approx(1e-5)


@pytest.mark.parametrize("last", [9.0, math.inf, math.nan])
def test_a_loss_that_grows_or_is_not_finite_ends_the_sweep(last):
    arguments, step, seen = scripted([2.0, 1.9, 1.5, last, 1.0])
    sweep = find_lr(*arguments, train_step=step, num_steps=100, smoothing=0.0)
    assert sweep.diverged
    assert len(sweep.losses) == len(sweep.lrs) == len(seen) == 4
    assert sweep.suggestion == sweep.lrs[1]


def test_a_first_loss_that_is_not_finite_suggests_nothing():
    arguments, step, _ = scripted([math.nan])
    sweep = find_lr(*arguments, train_step=step)
    assert sweep.diverged
    assert sweep.suggestion is None


def test_the_mean_is_pandas_adjusted_moving_mean():
    losses = [3.0, 1.0, 2.0, 5.0]
    arguments, step, _ = scripted(losses)
    sweep = find_lr(*arguments, train_step=step, num_steps=4, smoothing=0.8, divergence_factor=100)
    expected = []
    for k in range(4):  # weights 0.8^age, divided by their sum
        weights = np.array([0.8 ** (k - j) for j in range(k + 1)])
        expected.append(float((weights * losses[: k + 1]).sum() / weights.sum()))
    assert sweep.smoothed == pytest.approx(expected, rel=1e-12)


def test_groups_keep_their_ratio():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.4}])
    seen = []

    def step():
        seen.append([group["lr"] for group in optimizer.param_groups])
        return 1.0

    sweep = find_lr(nn.ParameterList(weights), optimizer, train_step=step, num_steps=3)
    assert [second for _, second in seen] == sweep.lrs
    assert [first / second for first, second in seen] == pytest.approx([0.25] * 3)


def test_on_a_quadratic_the_sweep_diverges_where_theory_says():
    """Gradient descent on a/2 w² diverges above lr = 2/a."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=1.0)

    def step():
        optimizer.zero_grad()
        loss = 50.0 * weight.square().sum() + 1.0  # a = 100; the 1 keeps the loss from zero
        loss.backward()
        optimizer.step()
        return loss

    sweep = find_lr(nn.ParameterList([weight]), optimizer, train_step=step, min_lr=1e-5, max_lr=1.0)
    assert sweep.diverged
    assert sweep.suggestion < 2 / 100 < sweep.lrs[-1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_lr": 0.0}, "0 < min_lr < max_lr"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "0 < min_lr < max_lr"),
        ({"num_steps": 1}, "num_steps >= 2"),
        ({"smoothing": 1.0}, "smoothing < 1"),
        ({"divergence_factor": 1.0}, "divergence_factor > 1"),
    ],
)
def test_numbers_out_of_their_range_are_errors(options, says):
    arguments, step, _ = scripted([1.0])
    with pytest.raises(InputError, match=says):
        find_lr(*arguments, train_step=step, **options)


def test_learning_rates_of_zero_have_no_ratio():
    weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(InputError, match="an lr above 0"):
        find_lr(nn.ParameterList([weight]), torch.optim.SGD([weight], lr=0.0), train_step=lambda: 1.0)


@pytest.mark.parametrize(("loss", "got"), [(None, "NoneType"), (torch.ones(3), r"a tensor of shape \(3,\)")])
def test_a_step_that_returns_no_loss_is_told_so_and_leaves_no_trace(loss, got):
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    with pytest.raises(InputError, match=f"train_step returned no loss: .* got {got}"):
        find_lr(nn.ParameterList([weight]), optimizer, train_step=lambda: loss)
    assert optimizer.param_groups[0]["lr"] == 0.5
