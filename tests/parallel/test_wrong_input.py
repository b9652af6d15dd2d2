"""Mistakes that torch lets pass, or that make ranks wait for each other: each is an error by name."""

import functools
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, use_experts
from coursekit.parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    ZeroOptimizerNaive,
    average_gradients,
    average_gradients_bucketed,
    balance_stages,
    broadcast_parameters,
    bubble_over_step,
    context_parallelize,
    gpipe_schedule,
    launch,
    make_mesh,
    make_schedule,
    ring_attention,
    ring_bytes_sent,
    scatter_sequence,
    sequence_indices,
    shard_indices,
    shard_model,
    split_into_stages,
    split_sequence,
    spread_experts,
    sum_over_ranks,
    tensor_parallelize,
    tensor_parallelize_naive,
    vocab_parallel_cross_entropy,
    zero_bytes_per_rank,
)
from coursekit.train import all_reduce_count


def linear(d_out=2):
    layer = nn.Linear(3, d_out)
    layer(torch.ones(4, 3)).mean().backward()
    return layer


def gpt(n_experts=0):
    model = GPT(GPTConfig(vocab_size=12, max_seq_len=8, d_model=8, n_layers=2, n_heads=2))
    if n_experts:
        use_experts(model, n_experts)
    return model


def twice(divide, model, where):
    divide(model, where)
    divide(model, where)


def lookup(ids):
    return VocabParallelEmbedding(nn.Embedding(6, 2), dist.group.WORLD)(torch.tensor([ids]))


def attend(num_queries, num_keys):
    q, k = torch.randn(1, 2, num_queries, 4), torch.randn(1, 2, num_keys, 4)
    return ring_attention(q, k, k, group=dist.group.WORLD)


def pipeline_step(num_valid):
    stages = split_into_stages(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 2)
    schedule = make_schedule("gpipe", stages, num_micro_batches=2, loss_sum=lambda y, t: (y - t).sum())
    return schedule.step(torch.ones(4, 3), torch.ones(4, 3), num_valid=num_valid)


# What rank 1 of 2 does, with a group of rank 0 alone, and what it should be told.
OUTSIDE = {
    "average": lambda group: average_gradients(linear(), group),
    "average by tokens": lambda group: average_gradients(linear(), group, num_valid=3),
    "average in buckets": lambda group: average_gradients_bucketed(linear(), group=group),
    "count": lambda group: all_reduce_count(3, group=group),
    "broadcast": lambda group: broadcast_parameters(linear(), group),
    "sum": lambda group: sum_over_ranks(torch.ones(2), group),
    "ZeRO": lambda group: ZeroOptimizerNaive(linear().parameters(), torch.optim.SGD, group=group),
    "pipeline": lambda group: make_schedule(
        "gpipe", [nn.Linear(3, 3)], num_micro_batches=2, loss_sum=lambda y, t: (y - t).sum(), group=group
    ),
}
# What both do, with the group of all.
INSIDE = {
    "half a token": (lambda all: average_gradients(linear(), num_valid=2.5), "a whole num_valid, got 2.5"),
    "columns": (lambda all: ColumnParallelLinear(linear(3), all), "a multiple of 2 in dim 0, as 4 is"),
    "rows": (lambda all: RowParallelLinear(linear(), all), "a multiple of 2 in dim 1, as 4 is"),
    "vocabulary": (lambda all: VocabParallelEmbedding(nn.Embedding(5, 2), all), "a multiple of 2 in dim 0"),
    "split": (lambda all: split_sequence(torch.ones(1, 5, 2), all), "a multiple of 2 in dim 1, as 6 is"),
    "scatter": (lambda all: scatter_sequence(torch.ones(1, 5, 2), all), "got shape (1, 5, 2)"),
    "an id too large": (lambda all: lookup([0, 9]), "expected 0 to 5, got 0 to 9"),
    "a negative id": (lambda all: lookup([-1, 1]), "expected 0 to 5, got -1 to 1"),
    "a label too large": (
        lambda all: vocab_parallel_cross_entropy(torch.ones(2, 3), torch.tensor([6, -100]), group=all),
        "expected 0 to 5, got 0 to 6",
    ),
    "divided by hand twice": (lambda all: twice(tensor_parallelize_naive, gpt(), all), "divided already"),
    "divided by hand, then by torch": (
        lambda all: tensor_parallelize(tensor_parallelize_naive(gpt(), all), make_mesh(tp=2)["tp"]),
        "divided already",
    ),
    "a group for a mesh": (lambda all: tensor_parallelize(gpt(), all), 'one axis, as mesh["tp"], got Proce'),
    "a group for the context's": (lambda all: context_parallelize(gpt(), all), 'as mesh["cp"], got Proce'),
    "a group for the experts'": (lambda all: spread_experts(gpt(2), all), 'as mesh["ep"], got Process'),
    "a group for the shards'": (lambda all: shard_model(gpt(), all), "two (HSDP), got ProcessGroup"),
    "spread twice": (lambda all: twice(spread_experts, gpt(4), None), "the experts are spread already"),
    "fewer keys": (lambda all: attend(4, 6), "(1, 2, 4, 4) and (1, 2, 6, 4)"),
    "endlessly many valid": (lambda all: pipeline_step(math.inf), "a finite num_valid > 0, got inf"),
    "NaN valid": (lambda all: pipeline_step(math.nan), "a finite num_valid > 0, got nan"),
    "other meshes": (
        lambda all: make_mesh(tp=1 + dist.get_rank()),
        "the ranks make different meshes: expected the sizes of rank 0",
    ),
}


def told(call, group):
    try:
        call(group)
    except InputError as error:
        return str(error)
    return "no error"


def told_on_rank():
    outside, everybody = dist.new_group([0]), dist.group.WORLD
    mistakes = {name: told(call, outside) for name, call in OUTSIDE.items()} if dist.get_rank() == 1 else {}
    return mistakes | {name: told(call, everybody) for name, (call, _) in INSIDE.items()}


@functools.cache
def told_on_ranks():
    return launch(told_on_rank, 2, timeout_seconds=120)


@pytest.mark.parametrize("mistake", OUTSIDE)
def test_a_rank_outside_the_group_is_told_so(mistake):
    """Torch says that such a group has -1 ranks: a mean over it was this rank's own gradient, times -1."""
    assert "this rank is not in the group" in told_on_ranks()[1][mistake]


@pytest.mark.parametrize("mistake", INSIDE)
def test_a_mistake_is_an_error_on_every_rank(mistake):
    for messages in told_on_ranks():
        assert INSIDE[mistake][1] in messages[mistake]


ALONE = {
    "half a sample": (lambda: shard_indices(5.5, dp_rank=0, dp_size=2), "a whole num_samples >= 0, got 5.5"),
    "half a rank": (lambda: shard_indices(5, dp_rank=0.5, dp_size=2), "a whole dp_rank >= 0, got 0.5"),
    "half a part": (lambda: zero_bytes_per_rank(100, stage=1, dp_size=1.5), "a whole dp_size >= 1"),
    "a ring of 1.5": (lambda: ring_bytes_sent("all_reduce", 1, 1.5), "a whole world_size >= 1"),
    "floats for positions": (lambda: sequence_indices(8.0, cp_rank=0, cp_size=2), "a whole seq_len >= 1"),
    "ranks as text": (lambda: gpipe_schedule("2", 2), "a whole num_ranks >= 1, got '2'"),
    "half a micro-batch": (lambda: bubble_over_step(2, 1.5), "a whole num_micro_batches >= 1, got 1.5"),
    "NaN for a cost": (lambda: balance_stages([1, math.nan], 2), "finite costs, 0 or more, got nan"),
    "half a stage": (lambda: balance_stages([1, 2], 1.5), "a whole num_stages >= 1, got 1.5"),
    "endless time": (lambda: launch(linear, 1, timeout_seconds=math.inf), "a finite timeout_seconds > 0"),
}


@pytest.mark.parametrize("mistake", ALONE)
def test_a_mistake_is_an_error_by_name(mistake):
    call, message = ALONE[mistake]
    with pytest.raises(InputError, match=message):
        call()
