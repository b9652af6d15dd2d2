"""Data parallelism on 2 and 4 real gloo processes against one process, in float64.

The oracle trains on the whole batch in one process and uses no coursekit code. Only the order of summation
differs, so the tolerance is 1e-12 relative.
"""

import copy

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import (
    RankError,
    average_gradients,
    average_gradients_bucketed,
    broadcast_parameters,
    launch,
    replicate,
    shard_batch,
    shard_indices,
)

RTOL = 1e-12
STEPS = 3


def tiny_model(seed=0):
    torch.manual_seed(seed)
    layers = nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    return nn.Sequential(*layers).double()


def batches(num_samples=8):
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(num_samples, 6, generator=generator, dtype=torch.float64),
            torch.randint(3, (num_samples,), generator=generator),
        )
        for _ in range(STEPS)
    ]


def train_alone(num_samples=8):
    """The oracle: SGD with momentum on whole batches; parameters after the last step."""
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for inputs, targets in batches(num_samples):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def train_on_rank(average, num_samples=8, weighted=False, seed_by_rank=False, broadcast=True):
    """The same on a rank's part of each batch, with `average` for the gradients."""
    dp_rank, dp_size = dist.get_rank(), dist.get_world_size()
    model = tiny_model(seed=dp_rank if seed_by_rank else 0)
    if broadcast:
        broadcast_parameters(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for batch in batches(num_samples):
        inputs, targets = shard_batch(batch, dp_rank=dp_rank, dp_size=dp_size, allow_uneven=True)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        average(model, **({"num_valid": len(inputs)} if weighted else {}))
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def train_with_ddp(**options):
    dp_rank, dp_size = dist.get_rank(), dist.get_world_size()
    model = replicate(tiny_model(seed=dp_rank), **options)  # other parameters: DDP must copy rank 0's
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for batch in batches():
        inputs, targets = shard_batch(batch, dp_rank=dp_rank, dp_size=dp_size)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def no_average(model, **_):
    """The famous bug: every rank trains alone."""


def bucketed_in_small_pieces(model, **options):
    average_gradients_bucketed(model, bucket_bytes=700, **options)


def bucketed_in_tiny_pieces(model, **options):
    average_gradients_bucketed(model, bucket_bytes=8, **options)


def is_close(parameters, others):
    return all(torch.allclose(a, b, rtol=RTOL, atol=1e-14) for a, b in zip(parameters, others, strict=True))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("average", [average_gradients, average_gradients_bucketed, bucketed_in_small_pieces])
def test_averaged_gradients_train_as_one_process_does(average, world_size):
    for parameters in launch(train_on_rank, world_size, average, seed_by_rank=True):
        assert is_close(parameters, train_alone())


@pytest.mark.parametrize("world_size", [2, 4])
def test_ddp_trains_as_one_process_does(world_size):
    for parameters in launch(train_with_ddp, world_size, bucket_cap_mb=0.001):
        assert is_close(parameters, train_alone())


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("average", [average_gradients, bucketed_in_small_pieces])
def test_weights_make_unequal_parts_exact(average, world_size):
    for parameters in launch(train_on_rank, world_size, average, num_samples=7, weighted=True):
        assert is_close(parameters, train_alone(num_samples=7))


def test_oracle_rejects_mean_of_means():
    for parameters in launch(train_on_rank, 2, average_gradients, num_samples=7):
        assert not is_close(parameters, train_alone(num_samples=7))


def test_oracle_rejects_missing_all_reduce():
    for parameters in launch(train_on_rank, 2, no_average):
        assert not is_close(parameters, train_alone())


def test_oracle_rejects_ranks_that_start_from_different_parameters():
    results = launch(train_on_rank, 2, average_gradients, seed_by_rank=True, broadcast=False)
    assert not is_close(results[0], results[1])
    assert not is_close(results[1], train_alone())


def ranks_without_tokens():
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.ones_(model.weight)
    inputs = torch.ones(0 if dist.get_rank() == 0 else 3, 2, dtype=torch.float64)
    model(inputs).mean().backward()  # NaN on rank 0
    average_gradients(model, num_valid=len(inputs))
    naive = model.weight.grad.clone()
    model.zero_grad()
    model(inputs).mean().backward()
    average_gradients_bucketed(model, num_valid=len(inputs))
    return naive, model.weight.grad


def test_a_rank_without_tokens_adds_nothing_not_nan():
    for gradients in launch(ranks_without_tokens, 2):
        for gradient in gradients:
            assert gradient.tolist() == [[1.0, 1.0]]


def no_tokens_at_all(average):
    average(tiny_model(), num_valid=0)


@pytest.mark.parametrize("average", [average_gradients, average_gradients_bucketed])
def test_no_token_on_any_rank_is_an_error(average):
    with pytest.raises(RankError, match="no rank has a valid token"):
        launch(no_tokens_at_all, 2, average)


def count_on_one_rank_only(average, numbers, folder):
    layer = nn.Linear(1, numbers, dtype=torch.float64 if numbers == 1 else torch.float32)
    for step in range(2):
        layer(torch.ones(1, 1, dtype=layer.weight.dtype)).sum().backward()
        average(layer, **({"num_valid": 3} if dist.get_rank() == 0 else {}))
        if dist.get_rank() == 1:
            (folder / f"averaged in step {step}").touch()


@pytest.mark.parametrize("numbers", [1, 2], ids="of {} numbers, of eight bytes as a count is".format)
@pytest.mark.parametrize("average", [average_gradients, bucketed_in_tiny_pieces])
def test_a_count_on_some_ranks_only_is_never_added_to_gradients(average, numbers, tmp_path):
    with pytest.raises(RankError):
        launch(count_on_one_rank_only, 2, average, numbers, tmp_path, timeout_seconds=30)
    assert not list(tmp_path.iterdir())


def unused_parameters(average):
    """Only rank 0 uses the first layer, only rank 1 the second; a frozen third is left alone."""
    layers = nn.ModuleList([nn.Linear(1, 1, bias=False).double() for _ in range(3)])
    layers[2].requires_grad_(False)
    layers[dist.get_rank()](torch.full((1, 1), 4.0, dtype=torch.float64)).sum().backward()
    average(layers)
    return [layer.weight.grad for layer in layers]


@pytest.mark.parametrize("average", [average_gradients, average_gradients_bucketed])
def test_parameters_used_on_one_rank_only_are_averaged_over_all(average):
    for first, second, frozen in launch(unused_parameters, 2, average, timeout_seconds=30):
        assert first.item() == second.item() == 2.0
        assert frozen is None


def mixed_dtypes_and_layouts(average):
    rank = float(dist.get_rank())
    model = nn.ParameterDict(
        {
            "a": nn.Parameter(torch.zeros(3, 4, dtype=torch.float64)),
            "b": nn.Parameter(torch.zeros(5, dtype=torch.float32)),
            "c": nn.Parameter(torch.zeros((), dtype=torch.float64)),
            "transposed": nn.Parameter(torch.zeros(4, 3, dtype=torch.float64).t()),
        }
    )
    for parameter in model.values():
        parameter.grad = torch.empty_like(parameter).copy_(
            torch.arange(parameter.numel()).view(parameter.shape) * (1 + rank)
        )
    average(model)
    return {name: parameter.grad for name, parameter in model.items()}


@pytest.mark.parametrize("average", [average_gradients, bucketed_in_small_pieces])
def test_dtypes_and_memory_layouts_may_be_mixed(average):
    for gradients in launch(mixed_dtypes_and_layouts, 4, average):
        for gradient in gradients.values():
            expected = torch.arange(gradient.numel(), dtype=gradient.dtype).view(gradient.shape) * 2.5
            torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


def averaged_in_groups():
    rank = dist.get_rank()
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, rank)
    broadcast_parameters(model, groups[rank // 2])
    model.weight.grad = torch.full((1, 1), float(rank), dtype=torch.float64)
    average_gradients(model, groups[rank // 2])
    return model.weight.item(), model.weight.grad.item()


def test_a_group_averages_among_its_own_ranks():
    assert launch(averaged_in_groups, 4) == [(0, 0.5), (0, 0.5), (2, 2.5), (2, 2.5)]


def buffers_after_broadcast():
    model = nn.BatchNorm1d(3).double()
    model.running_mean += dist.get_rank()
    model.num_batches_tracked += dist.get_rank()
    broadcast_parameters(model)
    return model.running_mean.sum().item(), model.num_batches_tracked.item()


def test_buffers_are_broadcast_too():
    assert launch(buffers_after_broadcast, 2) == [(0.0, 0), (0.0, 0)]


@given(st.integers(0, 200), st.integers(1, 17))
def test_shards_are_complete_disjoint_and_even(num_samples, dp_size):
    shards = [shard_indices(num_samples, dp_rank=rank, dp_size=dp_size) for rank in range(dp_size)]
    assert [index for shard in shards for index in shard] == list(range(num_samples))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@given(st.integers(1, 30), st.integers(1, 8))
def test_shards_of_a_batch_joined_are_the_batch(num_samples, dp_size):
    batch = {
        "x": torch.arange(num_samples * 2).view(-1, 2),
        "y": (torch.arange(num_samples), [torch.ones(num_samples)]),
    }
    shards = [shard_batch(batch, dp_rank=r, dp_size=dp_size, allow_uneven=True) for r in range(dp_size)]
    assert torch.equal(torch.cat([shard["x"] for shard in shards]), batch["x"])
    assert torch.equal(torch.cat([shard["y"][0] for shard in shards]), batch["y"][0])
    assert sum(len(shard["y"][1][0]) for shard in shards) == num_samples


def test_a_shard_is_a_view_not_a_copy():
    batch = torch.zeros(4, 2)
    shard_batch(batch, dp_rank=1, dp_size=2).fill_(1)
    assert batch.sum(1).tolist() == [0, 0, 2, 2]


def test_a_batch_that_does_not_divide_is_told_what_would():
    with pytest.raises(InputError, match="expected a multiple of 4, as 8 is, got 6 samples"):
        shard_batch(torch.zeros(6), dp_rank=0, dp_size=4)


@pytest.mark.parametrize("batch", [(torch.zeros(4), torch.zeros(3)), torch.zeros(()), [], {"x": "text"}])
def test_a_batch_without_one_length_is_an_error(batch):
    with pytest.raises(InputError):
        shard_batch(batch, dp_rank=0, dp_size=1)


@pytest.mark.parametrize(("dp_rank", "dp_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_group_is_an_error(dp_rank, dp_size):
    with pytest.raises(InputError):
        shard_indices(4, dp_rank=dp_rank, dp_size=dp_size)
    with pytest.raises(InputError):
        shard_batch(torch.arange(4), dp_rank=dp_rank, dp_size=dp_size)


@pytest.mark.parametrize(
    "use", [broadcast_parameters, average_gradients, average_gradients_bucketed, replicate]
)
def test_without_a_process_group_the_error_names_launch(use):
    with pytest.raises(InputError, match="launch"):
        use(copy.deepcopy(tiny_model()))
