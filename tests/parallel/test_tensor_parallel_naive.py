"""The tensor parallelism to read, on 2 and 4 real gloo processes against one process, in float64."""

import functools

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import (
    VocabParallelEmbedding,
    count_communication,
    launch,
    split_sequence,
    sum_sequence_parallel_gradients,
    tensor_parallelize_naive,
    vocab_parallel_cross_entropy,
)
from coursekit.train import measure_saved_tensors

from .sharded_gpt import (
    BATCH_SIZE,
    D_MODEL,
    GPT2,
    LLAMA,
    N_LAYERS,
    RTOL,
    SEQ_LEN,
    make_batches,
    make_model,
    mean_loss,
    train,
    train_alone,
    wrong_names,
)

CASES = {"gpt2": GPT2, "llama": LLAMA}
STREAM_BYTES = 8 * BATCH_SIZE * SEQ_LEN * D_MODEL
TOKEN_BYTES = 8 * BATCH_SIZE * SEQ_LEN


def parallel_loss(logits, labels):
    return vocab_parallel_cross_entropy(logits, labels, group=dist.group.WORLD)


def train_naive(case, sequence_parallel, omit=""):
    """Train on this rank, leaving out what `omit` names."""
    model = tensor_parallelize_naive(
        make_model(CASES[case]), dist.group.WORLD, sequence_parallel=sequence_parallel
    )
    if omit == "f":
        for block in model.blocks:
            block.feed_forward._forward_pre_hooks.clear()
    sums = functools.partial(sum_sequence_parallel_gradients, model, dist.group.WORLD)
    return train(
        model,
        loss_of=parallel_loss,
        after_backward=sums if sequence_parallel and omit != "sum" else lambda: None,
    )


def train_both_ways(case):
    return [train_naive(case, sequence_parallel) for sequence_parallel in (False, True)]


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_three_steps_equal_one_process(case, world_size):
    losses, gradients, parameters = train_alone(CASES[case])
    for rank, both in enumerate(launch(train_both_ways, world_size, case)):
        for its_losses, its_gradients, its_parameters in both:
            torch.testing.assert_close(its_losses, losses, rtol=RTOL, atol=0)
            assert not wrong_names(its_gradients, gradients, rank=rank, size=world_size)
            assert not wrong_names(its_parameters, parameters, rank=rank, size=world_size)


def test_control_without_f_the_loss_is_right_and_the_gradients_below_are_wrong():
    losses, gradients, _ = train_alone(GPT2)
    for rank, (its_losses, its_gradients, _) in enumerate(launch(train_naive, 2, "gpt2", False, omit="f")):
        torch.testing.assert_close(its_losses[0], losses[0], rtol=RTOL, atol=0)
        wrong = wrong_names(its_gradients, gradients, rank=rank, size=2)
        assert "blocks.1.feed_forward_norm.weight" in wrong  # just below the missing f of the last layer
        assert "blocks.1.feed_forward.up_proj.weight" not in wrong  # above it


def test_control_sequence_parallelism_without_the_sum_has_wrong_norms_and_nothing_else():
    _, gradients, _ = train_alone(GPT2)
    replicated = {n for n in gradients if "norm" in n or n.endswith(("o_proj.bias", "down_proj.bias"))}
    first, second = launch(train_naive, 2, "gpt2", True, omit="sum")
    for rank, (_, its_gradients, _) in enumerate([first, second]):
        assert wrong_names(its_gradients, gradients, rank=rank, size=2) == replicated
    assert not torch.equal(first[2]["final_norm.weight"], second[2]["final_norm.weight"])  # copies drift


def count_step(sequence_parallel):
    model = tensor_parallelize_naive(make_model(GPT2), dist.group.WORLD, sequence_parallel=sequence_parallel)
    input_ids, labels = make_batches()[0]
    with count_communication() as forward:
        loss = parallel_loss(model(input_ids), labels)
    with count_communication() as backward:
        loss.backward()
    return forward, backward


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_step_sends_what_the_formula_says(world_size):
    """4 all-reduces of b · t · d a block, one for the embedding and one for the head; the loss 3 of b · t."""
    for forward, backward in launch(count_step, world_size, False):
        assert forward.calls == {"all_reduce": 2 * N_LAYERS + 1 + 3}
        assert forward.payload_bytes == {"all_reduce": (2 * N_LAYERS + 1) * STREAM_BYTES + 3 * TOKEN_BYTES}
        assert backward.calls == {"all_reduce": 2 * N_LAYERS + 1}
        assert backward.payload_bytes == {"all_reduce": (2 * N_LAYERS + 1) * STREAM_BYTES}


@pytest.mark.parametrize("world_size", [2, 4])
def test_sequence_parallelism_splits_each_all_reduce_in_two(world_size):
    for forward, backward in launch(count_step, world_size, True):
        assert forward.calls == {
            "all_reduce": 1 + 3,
            "all_gather": 2 * N_LAYERS + 1,
            "reduce_scatter": 2 * N_LAYERS,
        }
        assert backward.calls == {"all_gather": 2 * N_LAYERS + 1, "reduce_scatter": 2 * N_LAYERS + 1}
        assert set(backward.payload_bytes.values()) == {(2 * N_LAYERS + 1) * STREAM_BYTES}


def saved_bytes(sequence_parallel):
    model = tensor_parallelize_naive(make_model(GPT2), dist.group.WORLD, sequence_parallel=sequence_parallel)
    input_ids, labels = make_batches()[0]
    with measure_saved_tensors(exclude=model.parameters()) as saved:
        loss = parallel_loss(model(input_ids), labels)
    return loss.item(), saved.peak_bytes


def test_sequence_parallelism_keeps_a_part_of_the_norms_inputs():
    """Each norm keeps its input, b · t · d, or with it half of that; the matrices' inputs stay whole."""
    (loss, plain), (same_loss, parallel) = (launch(saved_bytes, 2, flag)[0] for flag in (False, True))
    assert loss == pytest.approx(same_loss, rel=RTOL)
    num_norms = 2 * N_LAYERS + 1
    assert plain - parallel >= num_norms * STREAM_BYTES // 2


def embedding_and_loss(scale, reduction):
    """Return looked-up rows with the table's gradient, and a loss with the logits' gradient, on this rank."""
    group = dist.group.WORLD
    table, ids, logits, labels = embedding_and_logits(scale)
    embedding = VocabParallelEmbedding(table, group)
    rows = embedding(ids)
    rows.square().sum().backward()
    mine = split_sequence(logits, group, dim=-1).detach().requires_grad_()
    loss = vocab_parallel_cross_entropy(mine, labels, group=group, reduction=reduction)
    loss.backward()
    return rows.detach(), embedding.weight.grad, loss.detach(), mine.grad


def embedding_and_logits(scale):
    torch.manual_seed(0)
    table = nn.Embedding(12, 3).double()
    logits = scale * torch.randn(5, 7, 12, dtype=torch.float64)
    labels = torch.arange(35).view(5, 7) % 12
    labels[0] = -100
    return table, labels.clamp_min(0), logits, labels


@pytest.mark.parametrize(
    ("world_size", "scale", "reduction"), [(2, 1, "mean"), (4, 1, "sum"), (2, 1e4, "sum")]
)
def test_embedding_and_loss_divided_by_vocabulary_equal_torch(world_size, scale, reduction):
    table, ids, logits, labels = embedding_and_logits(scale)
    rows = table(ids)
    rows.square().sum().backward()
    loss = F.cross_entropy(
        logits.requires_grad_().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction=reduction
    )
    loss.backward()
    for rank, mine in enumerate(launch(embedding_and_loss, world_size, scale, reduction)):
        expected = (
            rows.detach(),
            table.weight.grad.chunk(world_size)[rank],
            loss.detach(),
            logits.grad.chunk(world_size, -1)[rank],
        )
        torch.testing.assert_close(mine, expected, rtol=RTOL, atol=1e-13)


def wrong_input():
    group, stage = dist.group.WORLD, make_model(GPT2)
    with pytest.raises(InputError, match="n_heads does not divide among the tensor-parallel ranks"):
        tensor_parallelize_naive(stage, group)
    with pytest.raises(InputError, match="'mean' or 'sum', got 'none'"):
        vocab_parallel_cross_entropy(
            torch.zeros(1, 1, 8), torch.zeros(1, 1, dtype=torch.int64), group=group, reduction="none"
        )
    return True


def test_heads_that_do_not_divide_and_an_unknown_reduction_are_errors():
    assert launch(wrong_input, 3) == [True] * 3


def sequence_of_six():
    stage = make_model(GPT2)
    stage.lm_head = None
    with pytest.raises(InputError, match="expected a whole model, got one with parts left out"):
        tensor_parallelize_naive(stage, dist.group.WORLD)
    model = tensor_parallelize_naive(make_model(GPT2), dist.group.WORLD, sequence_parallel=True)
    with pytest.raises(InputError, match="a multiple of 4, as 8 is, got 6 tokens"):
        model(make_batches()[0][0][:, :6])
    return True


def test_a_sequence_that_does_not_divide_and_a_stage_are_errors():
    assert launch(sequence_of_six, 4) == [True] * 4


def test_the_oracle_is_the_mean_over_tokens():
    model, (input_ids, labels) = make_model(GPT2), make_batches()[0]
    log_probs = model(input_ids).log_softmax(-1).gather(-1, labels.unsqueeze(-1))
    torch.testing.assert_close(mean_loss(model(input_ids), labels), -log_probs.mean(), rtol=RTOL, atol=0)
