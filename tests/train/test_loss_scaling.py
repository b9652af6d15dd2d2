"""The loss scaler against torch's own, and against gradients computed without a scale."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import clip_grad_norm_

from coursekit.errors import InputError
from coursekit.parallel import average_gradients, launch
from coursekit.train import LossScaler, accumulate_gradients, autocast, next_loss_scale

RULE = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3}


def one_weight():
    weight = nn.Parameter(torch.ones(1))
    return weight, torch.optim.SGD([weight], lr=0.25)


def step(scaler, weight, optimizer, gradient):
    """One step whose gradient is planted: d(gradient · weight) = gradient."""
    optimizer.zero_grad()
    scaler.scale((weight * gradient).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


def run(scaler, overflows):
    """Return the scale and the weight after each step, the gradient infinite where `overflows` says so."""
    weight, optimizer = one_weight()
    trace = []
    for overflow in overflows:
        step(scaler, weight, optimizer, float("inf") if overflow else 1.0)
        trace.append((scaler.get_scale(), weight.item()))
    return trace


overflow_sequences = st.lists(st.booleans(), min_size=1, max_size=25)


@settings(deadline=None, max_examples=40)
@given(overflow_sequences)
def test_scales_and_skips_are_those_of_torch(overflows):
    scaler = LossScaler("cpu", init_scale=1024, warn_after=100, **RULE)
    assert run(scaler, overflows) == run(torch.amp.GradScaler("cpu", init_scale=1024, **RULE), overflows)
    assert scaler.num_skipped == sum(overflows)
    in_a_row = next((n for n, overflow in enumerate(reversed(overflows)) if not overflow), len(overflows))
    assert scaler.num_skipped_in_a_row == in_a_row


def scales_by_rule(overflows, rule=next_loss_scale):
    scale, num_good, scales = 1024.0, 0, []
    for overflowed in overflows:
        scale, num_good = rule(scale, num_good, overflowed=overflowed, **RULE)
        scales.append(scale)
    return scales


@settings(deadline=None, max_examples=40)
@given(overflow_sequences)
def test_the_rule_to_read_gives_the_scales_of_torch(overflows):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024, **RULE)
    assert scales_by_rule(overflows) == [scale for scale, _ in run(scaler, overflows)]


def test_control_a_rule_that_does_not_start_counting_anew_after_an_overflow_is_rejected():
    def forgetful(scale, num_good, *, overflowed, **rule):
        new_scale, counted = next_loss_scale(scale, num_good, overflowed=overflowed, **rule)
        return new_scale, num_good if overflowed else counted

    overflows = [False, False, True, False]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024, **RULE)
    assert scales_by_rule(overflows, forgetful) != [scale for scale, _ in run(scaler, overflows)]


def test_a_scale_does_not_grow_to_infinity():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1)
    assert run(scaler, [False])[0][0] == 2.0**127
    assert next_loss_scale(2.0**127, 0, overflowed=False, growth_interval=1) == (2.0**127, 0)


def test_a_static_scale_stays_and_steps_that_overflow_are_left_out():
    scaler = LossScaler("cpu", init_scale=512, dynamic=False, growth_interval=1)
    assert run(scaler, [False, True, True, False]) == [(512, 0.75), (512, 0.75), (512, 0.75), (512, 0.5)]
    assert (scaler.num_skipped, scaler.num_skipped_in_a_row) == (2, 0)


def test_a_static_scale_set_by_hand_or_loaded_is_the_one_that_stays():
    weight, optimizer = one_weight()
    scaler = LossScaler("cpu", init_scale=512, dynamic=False)
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    scaler.update(64.0)
    assert [scale for scale, _ in run(scaler, [True, False])] == [64, 64]
    other = LossScaler("cpu", dynamic=False)
    other.load_state_dict(scaler.state_dict())
    assert [scale for scale, _ in run(other, [True, False])] == [64, 64]


def tiny_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batch(rows=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 6, generator=generator), torch.randint(3, (rows,), generator=generator)


def train_scaled(clip, steps=5, defect=False):
    """Clip in the place named by `clip`, with accumulation over micro-batches of unequal size."""
    model, scaler = tiny_net(), LossScaler("cpu", init_scale=4096)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    inputs, targets = batch()
    micro_batches = [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])]

    def loss_sum(micro_batch):
        return nn.functional.cross_entropy(model(micro_batch[0]), micro_batch[1], reduction="sum")

    for _ in range(steps):
        optimizer.zero_grad()
        accumulate_gradients(
            loss_sum, micro_batches, num_valid=8, backward=lambda loss: scaler.scale(loss).backward()
        )
        if not defect:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train_plain(clip, steps=5):
    """The oracle: no scale, no accumulation, the clipping written out."""
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        inputs, targets = batch()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad.mul_(min(1.0, clip / (norm.item() + 1e-6)))
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_accumulation_unscaling_and_clipping_train_as_without_a_scale():
    # float32, since a scaler is for float32 gradients; the scale is a power of two and adds no rounding
    torch.testing.assert_close(train_scaled(0.1), train_plain(0.1), rtol=1e-5, atol=1e-6)


def test_control_clipping_scaled_gradients_is_rejected():
    assert (train_scaled(0.1, defect=True) - train_plain(0.1)).abs().max() > 1e-2


def small_gradient(scaler):
    """The gradient of a loss in float16 that is smaller than the smallest float16, 6e-8."""
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with autocast("cpu", torch.float16):
        loss = (torch.ones(1, 4) @ weight).float().sum() * 1e-8
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return weight.grad[0, 0].item()


def test_a_gradient_too_small_for_float16_survives_with_a_scale_only():
    assert small_gradient(LossScaler("cpu")) == pytest.approx(1e-8, rel=1e-3)  # float16 has 11 bits
    assert small_gradient(LossScaler("cpu", enabled=False)) == 0.0


def test_a_scaler_that_is_not_enabled_changes_nothing():
    weight, optimizer = one_weight()
    scaler = LossScaler("cpu", enabled=False, dynamic=False)
    step(scaler, weight, optimizer, 1.0)
    assert (weight.item(), scaler.get_scale(), scaler.num_skipped) == (0.75, 1.0, 0)
    assert scaler.state_dict() == {}


def test_many_skips_in_a_row_are_said_with_the_scale_and_what_to_do():
    scaler = LossScaler("cpu", init_scale=1024, warn_after=4)
    run(scaler, [True] * 3)
    with pytest.warns(UserWarning, match=r"4 steps in a row .*, 4 in all; the loss scale is 128\. If"):
        run(scaler, [True])
    static = LossScaler("cpu", init_scale=8, warn_after=1, dynamic=False)
    with pytest.warns(UserWarning, match=r"the loss scale is 8\. Lower the static scale"):
        run(static, [True])


def test_a_run_resumed_from_a_state_goes_on_as_if_never_stopped():
    overflows = [True, False, False, True, False, False, False, True]
    whole, first, resumed = (LossScaler("cpu", init_scale=1024, **RULE) for _ in range(3))
    run(whole, overflows)
    run(first, overflows[:5])
    resumed.load_state_dict(first.state_dict())
    run(resumed, overflows[5:])
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.num_skipped == 3


def test_states_are_exchanged_with_torch_in_both_directions():
    ours, theirs = LossScaler("cpu", init_scale=1024, **RULE), torch.amp.GradScaler("cpu")
    run(ours, [True, False])
    theirs.load_state_dict(ours.state_dict())
    assert theirs.get_scale() == 512
    back = LossScaler("cpu")
    back.load_state_dict(theirs.state_dict())
    assert run(back, [False, False]) == run(theirs, [False, False])


def test_a_fused_optimizer_skips_and_is_counted_too():
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.AdamW([weight], fused=True), LossScaler("cpu")
    step(scaler, weight, optimizer, float("inf"))
    assert (weight.item(), scaler.num_skipped) == (1.0, 1)


@pytest.mark.parametrize("which", [0, 1])
def test_a_step_in_which_one_of_two_optimizers_skips_is_one_skip(which):
    pairs, scaler = [one_weight(), one_weight()], LossScaler("cpu", init_scale=1024)
    for index, (weight, optimizer) in enumerate(pairs):
        scaler.scale((weight * (float("inf") if index == which else 1.0)).sum()).backward()
        scaler.step(optimizer)
    scaler.update()
    assert [weight.item() for weight, _ in pairs] == [1.0 if index == which else 0.75 for index in (0, 1)]
    assert (scaler.num_skipped, scaler.get_scale()) == (1, 512)


def overflow_on_rank_one():
    rank = torch.distributed.get_rank()
    model, scaler = nn.Linear(1, 1, bias=False), LossScaler("cpu")
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for gradient in (float("inf") if rank == 1 else 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.full((1, 1), gradient)).sum()).backward()
        average_gradients(model)  # of scaled gradients: an overflow anywhere is one everywhere
        scaler.step(optimizer)
        scaler.update()
    return model.weight.item(), scaler.get_scale(), scaler.num_skipped


RANKS = [2, 3, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.parametrize("world_size", RANKS)
def test_ranks_skip_together(world_size):
    assert launch(overflow_on_rank_one, world_size, timeout_seconds=120) == [(0.5, 2.0**15, 1)] * world_size


def overflow_in_one_shard():
    from torch.distributed.fsdp import fully_shard

    num_rows = torch.distributed.get_world_size()
    model, scaler = nn.Linear(1, num_rows, bias=False), LossScaler("cpu")
    nn.init.ones_(model.weight)
    fully_shard(model)  # a row of the weight on each rank
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for of_row_one in (float("inf"), 1.0):
        optimizer.zero_grad()
        factors = torch.tensor([1.0, of_row_one, *[1.0] * (num_rows - 2)])
        scaler.scale((model(torch.ones(1, 1)) * factors).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    return model.weight.full_tensor().flatten().tolist(), scaler.get_scale(), scaler.num_skipped


@pytest.mark.parametrize("world_size", RANKS)
def test_ranks_skip_together_if_the_gradient_of_one_shard_overflows(world_size):
    expected = [0.5] * world_size, 2.0**15, 1
    assert launch(overflow_in_one_shard, world_size, timeout_seconds=120) == [expected] * world_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_scale": 0}, "init_scale above 0, got 0"),
        ({"growth_factor": 1}, "growth_factor above 1"),
        ({"backoff_factor": 1.0}, "backoff_factor between 0 and 1"),
        ({"growth_interval": 0}, "a whole growth_interval >= 1"),
        ({"warn_after": 0}, "a whole warn_after >= 1"),
    ],
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        LossScaler("cpu", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_and_not_a_scaler_that_does_nothing():
    with pytest.raises(InputError, match="no GPU"):
        LossScaler("cuda")


def test_update_before_step_is_an_error():
    scaler = LossScaler("cpu")
    scaler.scale(torch.ones(()))
    with pytest.raises(InputError, match=r"call scaler\.step"):
        scaler.update()
