"""Autocast, the dtypes it gives, and master weights by hand against torch.amp, bit for bit."""

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.train import LossScaler, MasterWeightsNaive, accumulate_gradients, autocast, record_op_dtypes

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def tiny_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def batches(steps, overflow_at=()):
    """Batches; an overflow is planted by inputs that float16 holds, but not times a scaled gradient."""
    generator = torch.Generator().manual_seed(3)
    for index in range(steps):
        inputs = torch.randn(8, 6, generator=generator).half().float()
        yield inputs * (3e4 if index in overflow_at else 1), torch.randint(3, (8,), generator=generator)


def loss_of(model, inputs, targets):
    return nn.functional.cross_entropy(model(inputs).float(), targets)


def train_by_hand(steps, **planted):
    model = tiny_net()
    masters = MasterWeightsNaive(model, init_scale=256, growth_interval=3)
    optimizer = torch.optim.SGD(masters.parameters, lr=0.125, momentum=0.5)
    trace = []
    for inputs, targets in batches(steps, **planted):
        masters.backward(loss_of(model, inputs.half(), targets))
        masters.unscale()
        masters.step(optimizer)
        trace.append((masters.scale, masters.num_skipped))
    return masters.parameters, trace


def train_with_torch(steps, compute_dtype=torch.float16, **planted):
    """The oracle: torch.amp, no coursekit."""
    model, scaler = tiny_net(), torch.amp.GradScaler("cpu", init_scale=256, growth_interval=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5)
    trace, num_skipped = [], 0
    for inputs, targets in batches(steps, **planted):
        optimizer.zero_grad()
        with torch.autocast("cpu", compute_dtype):
            loss = loss_of(model, inputs, targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        num_skipped += not all(p.grad.isfinite().all() for p in model.parameters())
        scaler.step(optimizer)
        scaler.update()
        trace.append((scaler.get_scale(), num_skipped))
    return list(model.parameters()), trace


def test_master_weights_by_hand_train_bit_for_bit_as_torch_does_with_planted_overflows():
    by_hand, trace = train_by_hand(12, overflow_at=(2, 7))
    expected, expected_trace = train_with_torch(12, overflow_at=(2, 7))
    assert trace == expected_trace
    assert trace[-1][1] >= 2
    for weight, other in zip(by_hand, expected, strict=True):
        assert torch.equal(weight, other)


def test_control_another_compute_dtype_is_rejected():
    by_hand, _ = train_by_hand(12)
    others, _ = train_with_torch(12, torch.bfloat16)
    assert not all(torch.equal(weight, other) for weight, other in zip(by_hand, others, strict=True))


def one_weight_model():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    return model


def test_small_updates_are_swallowed_by_float16_weights_and_kept_by_masters():
    assert torch.tensor(1.0).half() + 4e-4 == 1.0
    inputs, lr, steps = -torch.ones(1, 1).half(), 4e-4, 5  # gradient -1: each step adds 4e-4

    swallowed = one_weight_model().half()
    optimizer = torch.optim.SGD(swallowed.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        swallowed(inputs).float().sum().backward()
        optimizer.step()
    assert swallowed.weight.item() == 1.0

    kept = one_weight_model()
    masters = MasterWeightsNaive(kept, init_scale=8)
    optimizer = torch.optim.SGD(masters.parameters, lr=lr)
    for _ in range(steps):
        masters.backward(kept(inputs).float().sum())
        masters.unscale()
        masters.step(optimizer)
    assert masters.parameters[0].item() == pytest.approx(1 + steps * lr, rel=1e-6)  # float32 sums
    assert kept.weight.item() == torch.tensor(1 + steps * lr).half().item() > 1


def test_a_gradient_too_small_for_float16_reaches_the_masters():
    model = one_weight_model()
    masters = MasterWeightsNaive(model)
    masters.backward(model(torch.ones(1, 1).half()).float().sum() * 1e-8)
    assert model.weight.grad.item() > 0  # 6.6e-4, times the scale
    masters.unscale()
    assert masters.parameters[0].grad.item() == pytest.approx(1e-8, rel=1e-3)  # float16 has 11 bits
    assert torch.tensor(1e-8).half() == 0


def test_a_float16_loss_is_an_error_by_hand():
    model = one_weight_model()
    masters = MasterWeightsNaive(model)
    with pytest.raises(InputError, match=r"logits\.float\(\)"):
        masters.backward(model(torch.ones(1, 1).half()).sum())


@pytest.mark.parametrize("compute_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_products_are_in_the_compute_dtype_and_parameters_and_gradients_in_float32(compute_dtype):
    model = tiny_net()
    with autocast("cpu", compute_dtype), record_op_dtypes() as dtypes:
        loss = loss_of(model, *next(batches(1)))
    loss.backward()
    assert dict(dtypes["aten.addmm"]) == {compute_dtype: 2}
    assert (
        {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}
    )


def test_float32_is_bit_for_bit_the_plain_computation():
    model, (inputs, targets) = tiny_net(), next(batches(1))
    expected = loss_of(model, inputs, targets)
    with autocast("cpu", torch.float32):
        assert torch.equal(loss_of(model, inputs, targets), expected)


def test_the_gradient_in_bfloat16_is_near_the_one_in_float32_and_not_the_same():
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        model, (inputs, targets) = tiny_net(), next(batches(1))

        def loss_sum(batch, model=model, dtype=dtype):
            with autocast("cpu", dtype):
                return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        accumulate_gradients(loss_sum, [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])], num_valid=8)
        gradients[dtype] = torch.cat([p.grad.flatten() for p in model.parameters()])
    exact = gradients[torch.float32]
    difference = (gradients[torch.bfloat16] - exact).norm() / exact.norm()
    assert 1e-5 < difference < 3e-2  # bfloat16 has 8 bits: 4e-3 an operation


def train_in_one_loop(compute_dtype, *, dynamic=True, steps=20):
    """The visible loop: accumulation, unscaling, clipping; the same lines for every dtype."""
    model, (inputs, targets) = tiny_net(), next(batches(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = LossScaler("cpu", dynamic=dynamic, enabled=compute_dtype == torch.float16)

    def loss_sum(batch):
        with autocast("cpu", compute_dtype):
            return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    for _ in range(steps):
        optimizer.zero_grad()
        accumulate_gradients(
            loss_sum,
            [(inputs[:3], targets[:3]), (inputs[3:], targets[3:])],
            num_valid=8,
            backward=lambda loss: scaler.scale(loss).backward(),
        )
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.num_skipped == 0
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("compute_dtype", "options", "tolerance"),
    [
        (torch.float32, {}, 0.0),
        (torch.float16, {}, 1e-3),  # 11 bits, 5e-4 an operation; 20 steps
        (torch.float16, {"dynamic": False}, 1e-3),
        (torch.bfloat16, {}, 2e-2),  # 8 bits
    ],
)
def test_one_loop_in_every_dtype_ends_near_the_plain_one_in_float32(compute_dtype, options, tolerance):
    model, (inputs, targets) = tiny_net(), next(batches(1))
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
    expected = torch.cat([p.detach().flatten() for p in model.parameters()])
    trained = train_in_one_loop(compute_dtype, **options)
    distance = (trained - expected).norm() / (expected - start).norm()
    assert distance < tolerance + 1e-5  # float32 itself: another order of summation


def test_the_record_tells_which_operations_stay_in_float32():
    x = torch.rand(4, 4)
    with autocast("cpu", torch.bfloat16), record_op_dtypes() as dtypes:
        y = x @ x
        nn.functional.mse_loss(y, x)
        nn.functional.cross_entropy(y, torch.zeros(4, dtype=torch.int64))
        y.t().tanh()
    assert dict(dtypes["aten.mm"]) == dict(dtypes["aten.tanh"]) == {torch.bfloat16: 1}
    assert dict(dtypes["aten.mse_loss"]) == dict(dtypes["aten._log_softmax"]) == {torch.float32: 1}
    assert "aten.t" not in dtypes


def test_the_record_sees_backward_and_is_the_same_outside_of_autocast():
    x = torch.rand(4, 4, requires_grad=True)
    with record_op_dtypes() as dtypes:
        with autocast("cpu", torch.bfloat16):
            y = (x @ x).sum()
        y.backward()
    assert dict(dtypes["aten.mm"]) == {torch.bfloat16: 3}


def test_control_without_autocast_everything_is_float32():
    model, batch = tiny_net(), next(batches(1))
    with record_op_dtypes() as dtypes:
        loss_of(model, *batch)
    assert {dtype for counts in dtypes.values() for dtype in counts} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_another_dtype_is_an_error_and_not_silently_float32(dtype):
    with pytest.raises(InputError, match=r"float64 leave autocast away"):
        autocast("cpu", dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_and_not_silently_float32():
    with pytest.raises(InputError, match="there is no GPU to compute on: expected cpu, got cuda"):
        autocast("cuda", torch.float16)
    with pytest.warns(UserWarning, match="Disabling autocast"):  # what torch does
        assert not torch.autocast("cuda", torch.float16)._enabled


@pytest.mark.gpu
@needs_cuda
def test_softmax_and_layer_norm_stay_in_float32_on_cuda():
    x = torch.rand(4, 4, device="cuda")
    with autocast("cuda", torch.float16), record_op_dtypes() as dtypes:
        nn.functional.layer_norm((x @ x).softmax(-1), (4,))
    assert dict(dtypes["aten.mm"]) == {torch.float16: 1}
    assert dict(dtypes["aten._softmax"]) == dict(dtypes["aten.native_layer_norm"]) == {torch.float32: 1}


@pytest.mark.gpu
@needs_cuda
def test_a_loss_falls_on_cuda_in_float16_with_a_dynamic_scale():
    model, scaler = tiny_net().cuda(), LossScaler("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    inputs, targets = (x.cuda() for x in next(batches(1)))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with autocast("cuda", torch.float16):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert scaler.num_skipped < 10
