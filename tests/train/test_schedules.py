"""Schedules against torch's own schedulers, at their boundaries, and as properties."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from coursekit.errors import InputError
from coursekit.train import (
    WarmupConstant,
    WarmupCosine,
    WarmupExponential,
    WarmupLinear,
    WarmupStableDecay,
    make_optimizer,
    set_lr,
)

PEAK, TOTAL, WARMUP = 0.3, 50, 7


def optimizer_of(*lrs):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=1.0)


def lrs_of_torch(make, num_steps):
    """Return the learning rates that torch's scheduler gives the first `num_steps` steps."""
    optimizer = optimizer_of(PEAK)
    scheduler = make(optimizer)
    lrs = []
    for _ in range(num_steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def lrs_of(schedule, num_steps):
    return [PEAK * schedule(step) for step in range(num_steps)]


def with_torchs_warmup(make_rest):
    """Return a maker of torch's LinearLR for warm-up, and another scheduler behind it."""

    def make(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (WARMUP + 1), total_iters=WARMUP)
        return lr_scheduler.SequentialLR(optimizer, [warmup, make_rest(optimizer)], milestones=[WARMUP])

    return make


def cosine(optimizer, steps=TOTAL):
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=0.1 * PEAK)


def linear(optimizer, steps=TOTAL):
    return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=steps)


def exponential(optimizer):
    return lr_scheduler.ExponentialLR(optimizer, gamma=0.9)


def constant(optimizer):
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (WarmupCosine(TOTAL, min_ratio=0.1), cosine),
        (WarmupLinear(TOTAL, min_ratio=0.1), linear),
        (WarmupExponential(0.9), exponential),
        (WarmupConstant(), constant),
        (WarmupConstant(WARMUP), with_torchs_warmup(constant)),
        (WarmupExponential(0.9, WARMUP), with_torchs_warmup(exponential)),
        (WarmupLinear(TOTAL, WARMUP, min_ratio=0.1), with_torchs_warmup(lambda o: linear(o, TOTAL - WARMUP))),
        (WarmupCosine(TOTAL, WARMUP, min_ratio=0.1), with_torchs_warmup(lambda o: cosine(o, TOTAL - WARMUP))),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),  # a function's repr holds its address
)
def test_each_schedule_is_torchs(schedule, make):
    # 1e-11: torch's schedulers multiply the last learning rate on, and gather fifty roundings.
    assert lrs_of(schedule, TOTAL + 1) == pytest.approx(lrs_of_torch(make, TOTAL + 1), rel=1e-11)


def test_wsd_is_a_line_on_the_last_steps():
    schedule = WarmupStableDecay(TOTAL, 10, warmup_steps=WARMUP, min_ratio=0.1)
    line = WarmupLinear(10, min_ratio=0.1)
    expected = [line(max(0, step - 40)) for step in range(WARMUP, TOTAL + 5)]
    assert [schedule(step) for step in range(WARMUP, TOTAL + 5)] == pytest.approx(expected, rel=1e-12)


def test_wsd_falls_by_a_root_if_asked_to():
    schedule = WarmupStableDecay(TOTAL, 10, shape="1-sqrt")
    expected = [1 - math.sqrt(k / 10) for k in range(11)]
    assert [schedule(40 + k) for k in range(11)] == pytest.approx(expected, rel=1e-12)


ENDING = [
    WarmupCosine(TOTAL, WARMUP, min_ratio=0.1),
    WarmupLinear(TOTAL, WARMUP, min_ratio=0.1),
    WarmupStableDecay(TOTAL, 10, warmup_steps=WARMUP, min_ratio=0.1),
    WarmupStableDecay(TOTAL, 10, warmup_steps=WARMUP, min_ratio=0.1, shape="1-sqrt"),
]
ALL = [*ENDING, WarmupConstant(WARMUP), WarmupExponential(0.9, WARMUP, min_ratio=0.1)]


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_warm_up_begins_above_zero_and_the_peak_follows_its_last_step(schedule):
    assert schedule(0) == 1 / (WARMUP + 1)
    assert schedule(WARMUP - 1) == WARMUP / (WARMUP + 1)
    assert schedule(WARMUP) == 1


@pytest.mark.parametrize("schedule", ENDING, ids=repr)
def test_the_floor_is_reached_at_total_steps_and_kept(schedule):
    assert schedule(TOTAL - 1) > 0.1
    assert schedule(TOTAL) == schedule(TOTAL + 1) == schedule(10 * TOTAL) == pytest.approx(0.1, rel=1e-12)


def test_control_torchs_cosine_rises_again():
    torchs = lrs_of_torch(cosine, TOTAL + 10)
    ours = lrs_of(WarmupCosine(TOTAL, min_ratio=0.1), TOTAL + 10)
    assert torchs[TOTAL] == pytest.approx(ours[TOTAL], rel=1e-11)
    assert torchs[-1] > 1.1 * ours[-1]


@given(st.integers(0, 20), st.integers(1, 40), st.floats(0, 1), st.integers(0, 100))
def test_multipliers_stay_within_floor_and_peak_and_never_rise_after_warm_up(warmup, decay, floor, step):
    total = warmup + decay + 5
    schedules = [
        WarmupCosine(total, warmup, min_ratio=floor),
        WarmupLinear(total, warmup, min_ratio=floor),
        WarmupStableDecay(total, decay, warmup_steps=warmup, min_ratio=floor, shape="1-sqrt"),
        WarmupExponential(0.9, warmup, min_ratio=floor),
    ]
    for schedule in schedules:
        assert 0 <= schedule(step) <= 1
        if step >= warmup:
            assert floor - 1e-12 <= schedule(step + 1) <= schedule(step)
        else:
            assert schedule(step) < schedule(step + 1)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_lambda_lr_takes_a_schedule_and_resumes_it_from_its_state(schedule):
    first, second = optimizer_of(PEAK, 2 * PEAK), optimizer_of(PEAK, 2 * PEAK)
    scheduler = lr_scheduler.LambdaLR(first, schedule)
    for _ in range(20):
        first.step()
        scheduler.step()
    resumed = lr_scheduler.LambdaLR(second, copy.deepcopy(schedule))
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    second.step()
    resumed.step()
    assert [group["lr"] for group in second.param_groups] == [PEAK * schedule(21), 2 * PEAK * schedule(21)]


def test_set_lr_keeps_the_ratios_of_groups_even_through_zero():
    optimizer = optimizer_of(0.3, 0.1)
    for multiplier in (0.5, 0.0, 1.0, 0.25):
        assert set_lr(optimizer, multiplier) == [0.3 * multiplier, 0.1 * multiplier]
        assert [group["lr"] for group in optimizer.param_groups] == [0.3 * multiplier, 0.1 * multiplier]


def test_a_resumed_optimizer_remembers_its_peak():
    optimizer, resumed = optimizer_of(0.3, 0.1), optimizer_of(7.0, 7.0)
    set_lr(optimizer, 0.5)
    resumed.load_state_dict(optimizer.state_dict())
    assert set_lr(resumed, 1.0) == [0.3, 0.1]


def test_set_lr_agrees_with_lambda_lr():
    ours, torchs = optimizer_of(PEAK, 0.1), optimizer_of(PEAK, 0.1)
    schedule = WarmupCosine(TOTAL, WARMUP)
    scheduler = lr_scheduler.LambdaLR(torchs, schedule)
    for step in range(TOTAL + 2):
        set_lr(ours, schedule(step))
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in torchs.param_groups]
        torchs.step()
        scheduler.step()


def test_a_learning_rate_in_a_tensor_stays_that_tensor():
    weights = [nn.Parameter(torch.zeros(1))]
    lr = torch.tensor(0.5, dtype=torch.float64)
    optimizer = make_optimizer("adamw", weights, lr=lr)
    for multiplier in (0.5, 0.25):
        assert set_lr(optimizer, multiplier) == [0.5 * multiplier]
        assert optimizer.param_groups[0]["lr"] is lr
        assert lr.item() == 0.5 * multiplier


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WarmupCosine(10, 10), "warmup_steps < 10, got 10"),
        (lambda: WarmupLinear(10, -1), "warmup_steps >= 0"),
        (lambda: WarmupLinear(10, min_ratio=1.5), "0 <= min_ratio <= 1"),
        (lambda: WarmupExponential(1.1), "0 < gamma <= 1"),
        (lambda: WarmupCosine(0), "total_steps >= 1, got 0"),
        (lambda: WarmupStableDecay(10, 0), "decay_steps >= 1"),
        (lambda: WarmupStableDecay(10, 11), "decay_steps <= total_steps = 10, got 11"),
        (lambda: WarmupStableDecay(10, 8, warmup_steps=3), "no step is left after warm-up"),
        (lambda: WarmupStableDecay(10, 5, shape="sqrt"), "'linear' or '1-sqrt'"),
        (lambda: WarmupConstant()(-1), "step >= 0"),
        (lambda: WarmupCosine(10)(-1), "step >= 0"),
        (lambda: set_lr(optimizer_of(1.0), -0.5), "multiplier >= 0"),
        (lambda: set_lr(optimizer_of(1.0), float("nan")), "multiplier >= 0"),
    ],
)
def test_what_is_no_schedule_is_an_error(make, says):
    with pytest.raises(InputError, match=says):
        make()
