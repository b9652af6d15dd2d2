"""A GPT whose sequences 2 and 4 real gloo processes share, against one process, in float64."""

import functools

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from coursekit.errors import InputError
from coursekit.parallel import (
    RankError,
    average_gradients,
    context_parallelize,
    launch,
    make_mesh,
    ring_attention,
    sequence_indices,
    ulysses_attention,
)

from .sharded_gpt import (
    GPT2,
    GROUPED,
    LLAMA,
    RTOL,
    SEQ_LEN,
    error_of,
    make_batches,
    make_model,
    mean_loss,
    train,
    train_alone,
    wrong_names,
)

MODELS = {
    "ring": (GPT2, {"method": "ring"}),
    "ring zigzag": (LLAMA, {"method": "ring", "zigzag": True}),
    "gather": (GROUPED, {"method": "gather"}),
    "ulysses": (LLAMA, {"method": "ulysses"}),
}


def train_on_rank(case, positions_from_zero=False, shift_after=False):
    config, options = MODELS[case]
    mesh = make_mesh(cp=dist.get_world_size())["cp"]
    model = context_parallelize(make_model(config), mesh, **options)
    mine = sequence_indices(
        SEQ_LEN, cp_rank=mesh.get_local_rank(), cp_size=mesh.size(), zigzag=options.get("zigzag", False)
    )
    batches = [(input_ids[:, mine], labels[:, mine]) for input_ids, labels in make_batches()]
    if shift_after:
        batches = [(input_ids, labels.clone()) for input_ids, labels in batches]
        for input_ids, labels in batches:
            labels[:, :-1], labels[:, -1] = input_ids[:, 1:], -100
    positions = torch.arange(len(mine)) if positions_from_zero else mine
    losses, gradients, parameters = train(
        model,
        loss_of=mean_loss,
        batches=batches,
        positions=positions,
        after_backward=lambda: average_gradients(model, mesh.get_group()),
    )
    for loss in losses:
        dist.all_reduce(loss, group=mesh.get_group())
    return [loss / mesh.size() for loss in losses], gradients, parameters


def train_in_all_ways():
    return {case: train_on_rank(case) for case in MODELS if case != "gather" or dist.get_world_size() == 2}


@functools.cache
def trained(world_size):
    return launch(train_in_all_ways, world_size)


@pytest.mark.parametrize(
    ("world_size", "case"),
    [
        *((2, case) for case in MODELS),
        *(pytest.param(4, case, marks=pytest.mark.slow) for case in ("ring zigzag", "ulysses")),
    ],
)
def test_losses_gradients_and_three_steps_of_a_gpt_equal_one_process(world_size, case):
    losses, gradients, parameters = train_alone(MODELS[case][0])
    for on_rank in trained(world_size):
        its_losses, its_gradients, its_parameters = on_rank[case]
        torch.testing.assert_close(its_losses, losses, rtol=RTOL, atol=0)
        assert not wrong_names(its_gradients, gradients)
        assert not wrong_names(its_parameters, parameters)


@pytest.mark.parametrize("case", ["ring", "ring zigzag"])  # learned positions, rotary ones
def test_positions_counted_on_every_rank_are_an_error(case):
    with pytest.raises(RankError, match=r"not divided as .* got \[0, 1, 2, 3\]; take them"):
        launch(train_on_rank, 2, case, positions_from_zero=True)


def test_control_the_oracle_rejects_labels_shifted_within_each_part():
    losses, _, _ = train_alone(GPT2)
    for its_losses, _, _ in launch(train_on_rank, 2, "ring", shift_after=True):
        assert not torch.allclose(its_losses[0], losses[0], rtol=1e-6)


def padded_batch():
    """Return ids and labels of which the last five positions are padding."""
    input_ids, labels = make_batches()[0]
    labels[:, -5:] = -100
    return input_ids, labels


def gradients_of_padded_batch(with_counts):
    mesh = make_mesh(cp=2)["cp"]
    model = context_parallelize(make_model(GPT2), mesh)
    mine = sequence_indices(SEQ_LEN, cp_rank=mesh.get_local_rank(), cp_size=2)
    input_ids, labels = (tensor[:, mine] for tensor in padded_batch())
    loss = F.cross_entropy(model(input_ids, positions=mine).flatten(0, 1), labels.flatten(), reduction="sum")
    num_valid = int((labels != -100).sum())
    (loss / max(num_valid, 1)).backward()
    average_gradients(model, mesh.get_group(), num_valid=num_valid if with_counts else None)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_padded_sequences_need_the_count_of_targets_and_are_then_exact():
    """The second of two ranks has no target at all."""
    model, (input_ids, labels) = make_model(GPT2), padded_batch()
    mean_loss(model(input_ids), labels).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    for gradients in launch(gradients_of_padded_batch, 2, with_counts=True):
        assert not wrong_names(gradients, expected)
    for gradients in launch(gradients_of_padded_batch, 2, with_counts=False):
        assert "final_norm.weight" in wrong_names(gradients, expected)


@given(st.integers(1, 8), st.integers(1, 5), st.booleans())
def test_parts_are_complete_disjoint_and_even(cp_size, length, zigzag):
    seq_len = cp_size * length * (2 if zigzag else 1)
    parts = [sequence_indices(seq_len, cp_rank=r, cp_size=cp_size, zigzag=zigzag) for r in range(cp_size)]
    assert sorted(torch.cat(parts).tolist()) == list(range(seq_len))
    assert {len(part) for part in parts} == {seq_len // cp_size}
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)


@given(st.integers(1, 8), st.integers(1, 5))
def test_zigzag_parts_see_as_many_keys_as_each_other_chunk_by_chunk(cp_size, length):
    parts = [
        sequence_indices(2 * cp_size * length, cp_rank=r, cp_size=cp_size, zigzag=True)
        for r in range(cp_size)
    ]
    assert len({int(part.sum()) for part in parts}) == 1  # a query at m sees m + 1 keys


def test_a_sequence_that_does_not_divide_is_told_what_would():
    with pytest.raises(InputError, match="a multiple of 8, as 16 is, got 12 tokens"):
        sequence_indices(12, cp_rank=0, cp_size=4, zigzag=True)
    with pytest.raises(InputError, match="0 to 1, got 2"):
        sequence_indices(8, cp_rank=2, cp_size=2)


def errors():
    group = dist.group.WORLD
    q, k, v = (torch.zeros(1, num_heads, 4, 2) for num_heads in (4, 2, 2))
    mesh = make_mesh(cp=4)
    model = context_parallelize(make_model(GPT2), mesh["cp"])
    return [
        (error_of(ulysses_attention, q, k, v, group=group), "key heads do not divide among the context"),
        (error_of(ulysses_attention, q, k, v, group=group), 'use cp=2, or method="ring"'),
        (error_of(ring_attention, q, k, v, group=group, dropout_p=0.1), "no dropout"),
        (error_of(ring_attention, q[:, :, :3], k, v, group=group, zigzag=True), "an even length, got 3"),
        (error_of(context_parallelize, model, mesh), 'one axis, as mesh["cp"]'),
        (error_of(context_parallelize, model, mesh["cp"], method="rings"), "ring, gather, ulysses"),
        (error_of(context_parallelize, model, mesh["cp"], method="ulysses", zigzag=True), "zigzag=False"),
        (error_of(model, make_batches()[0][0]), "positions=mine"),
        (error_of(context_parallelize, torch.nn.Linear(2, 2), mesh["cp"]), "expected GPT, got Linear"),
    ]


def test_wrong_input_is_told_what_would_be_right():
    for error, expected in launch(errors, 4)[0]:
        assert expected in error
