"""ZeRO by hand on 2 and 4 real gloo processes against one process, in float64.

The oracle trains on whole batches with torch alone. Only the order of summation differs: 1e-12 relative.
"""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.parallel import (
    RankError,
    ShardedLinearNaive,
    ZeroOptimizerNaive,
    average_gradients,
    count_communication,
    launch,
    shard_batch,
    zero_bytes_sent,
)

STEPS = 3
adamw = functools.partial(torch.optim.AdamW, lr=0.02, weight_decay=0.1)
momentum = functools.partial(torch.optim.SGD, lr=0.3, momentum=0.9)


def tiny_model():
    """79 parameters, so that neither 2 nor 4 divides them."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), nn.Linear(3, 1)).double()


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def batches():
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(8, 5, generator=generator, dtype=torch.float64),
            torch.randn(8, 1, generator=generator, dtype=torch.float64),
        )
        for _ in range(STEPS)
    ]


def train_alone(make_model, make_optimizer):
    """The oracle; parameters after the last step."""
    model = make_model()
    optimizer = make_optimizer(model.parameters())
    for inputs, targets in batches():
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def train_with_zero_1(make_optimizer, forget_average=False):
    model = tiny_model()
    optimizer = ZeroOptimizerNaive(model.parameters(), make_optimizer)
    for batch in batches():
        inputs, targets = shard_batch(batch, dp_rank=dist.get_rank(), dp_size=dist.get_world_size())
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().mean()
        (loss * dist.get_world_size() if forget_average else loss).backward()  # a sum is N times the mean
        with count_communication() as communication:
            optimizer.step()
    return [parameter.detach() for parameter in model.parameters()], communication, optimizer.shard.numel()


def is_close(parameters, others, rtol=1e-12):
    return all(torch.allclose(a, b, rtol=rtol, atol=1e-14) for a, b in zip(parameters, others, strict=True))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("make_optimizer", [adamw, momentum])
def test_zero_1_trains_as_one_process_does(make_optimizer, world_size):
    for parameters, _, _ in launch(train_with_zero_1, world_size, make_optimizer):
        assert is_close(parameters, train_alone(tiny_model, make_optimizer))


def test_oracle_rejects_a_sum_in_place_of_the_mean():
    for parameters, _, _ in launch(train_with_zero_1, 2, momentum, forget_average=True):
        assert not is_close(parameters, train_alone(tiny_model, momentum), rtol=1e-3)


def test_adam_all_but_hides_a_sum_in_place_of_the_mean():
    # Adam divides the gradient's scale out again: only its epsilon, and a tight tolerance, tell the bug.
    for parameters, _, _ in launch(train_with_zero_1, 2, adamw, forget_average=True):
        assert is_close(parameters, train_alone(tiny_model, adamw), rtol=1e-3)
        assert not is_close(parameters, train_alone(tiny_model, adamw))


@pytest.mark.parametrize("world_size", [2, 4])
def test_zero_1_sends_as_much_as_data_parallelism_and_keeps_a_share(world_size):
    num_padded = 80  # of 79
    _, communication, shard_size = launch(train_with_zero_1, world_size, adamw)[0]
    assert shard_size == num_padded // world_size
    assert communication.payload_bytes == {"reduce_scatter": 8 * num_padded, "all_gather": 8 * num_padded}
    assert communication.ring_bytes == zero_bytes_sent(8 * num_padded, stage=1, dp_size=world_size)


def step_without_gradient():
    used, unused = nn.Parameter(torch.ones(3).double()), nn.Parameter(torch.ones(2).double())
    optimizer = ZeroOptimizerNaive([used, unused], functools.partial(torch.optim.SGD, lr=1.0))
    (used.sum() * (1 + dist.get_rank())).backward()
    optimizer.step()
    return used.tolist(), unused.tolist()


def test_a_missing_gradient_counts_as_zero():
    assert launch(step_without_gradient, 2) == [([-0.5] * 3, [1.0, 1.0])] * 2


def train_with_zero_3():
    model = mlp()
    model[0], model[2] = ShardedLinearNaive(model[0]), ShardedLinearNaive(model[2])
    optimizer = adamw(model.parameters())
    for batch in batches():
        inputs, targets = shard_batch(batch, dp_rank=dist.get_rank(), dp_size=dist.get_world_size())
        optimizer.zero_grad()
        with count_communication() as communication:
            (model(inputs) - targets).square().mean().backward()
        average_gradients(nn.ParameterList([model[0].bias, model[2].bias]))
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()], communication


@pytest.mark.parametrize("world_size", [2, 4])
def test_zero_3_trains_as_one_process_does_and_gathers_weights_twice(world_size):
    results = launch(train_with_zero_3, world_size)
    weight_0, bias_0, weight_2, bias_2 = train_alone(mlp, adamw)
    for layer, weight, bias in ((0, weight_0, bias_0), (2, weight_2, bias_2)):
        shards = [parameters[layer] for parameters, _ in results]
        assert all(len(shard) == len(weight) // world_size for shard in shards)
        assert is_close([torch.cat(shards)], [weight])
        assert all(is_close([parameters[layer + 1]], [bias]) for parameters, _ in results)
    weight_bytes = weight_0.nbytes + weight_2.nbytes
    communication = results[0][1]
    assert communication.payload_bytes == {"all_gather": 2 * weight_bytes, "reduce_scatter": weight_bytes}
    assert communication.ring_bytes == zero_bytes_sent(weight_bytes, stage=3, dp_size=world_size)


def test_zero_3_keeps_no_whole_weight_for_the_backward_pass():
    assert max(launch(rows_saved, 2)) == 4


def rows_saved():
    """The most rows of any weight-shaped tensor that autograd keeps."""
    layer, rows = ShardedLinearNaive(nn.Linear(5, 8, bias=False)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: rows.append(len(t)) or t, lambda t: t):
        layer(torch.zeros(3, 5, requires_grad=True))
    return max(rows)


def sharded(linear):
    ShardedLinearNaive(linear)


def optimized(parameters):
    ZeroOptimizerNaive(parameters, adamw)


def test_rows_that_do_not_divide_are_told_what_would():
    with pytest.raises(RankError, match="out_features a multiple of 2, as 4 is, got 3"):
        launch(sharded, 2, nn.Linear(2, 3))


@pytest.mark.parametrize("parameters", [[], [torch.zeros(1), torch.zeros(1).double()]])
def test_parameters_without_one_dtype_are_an_error(parameters):
    with pytest.raises(RankError, match="one vector needs one dtype"):
        launch(optimized, 2, parameters)
