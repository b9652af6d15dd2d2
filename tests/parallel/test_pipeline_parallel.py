"""Pipelines of 2 and 4 real gloo processes against the model in one process, in float64.

The oracle computes the mean loss per valid token of the whole batch by one backward pass and uses no
coursekit code but the model. Only the order of summation differs, so the tolerance is 1e-12 relative.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import pipelining

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig
from coursekit.parallel import (
    RankError,
    Span,
    launch,
    make_schedule,
    measure_idle_share,
    one_f_one_b_schedule,
    record_spans,
    split_into_stages,
)

STAGES = {"gpipe": 1, "1f1b": 1, "interleaved": 2, "zero_bubble": 2, "zbv": 2}  # a rank
NUM_MICRO_BATCHES = 4


def tiny_gpt(n_layers=8, **options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "max_seq_len": 6, "d_model": 8, "n_heads": 2}
    model = GPT(GPTConfig(**sizes, n_layers=n_layers, tie_embeddings=False, **options)).double()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)  # biases and residual layers that matter
    return model


def batch(seed=1, rows=8):
    """Token ids and labels; the first rows have few labels, so micro-batches count unequal tokens."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(13, (rows, 6), generator=generator)
    labels = torch.randint(13, (rows, 6), generator=generator)
    labels[: rows // 2, 1:] = -100
    return input_ids, labels


def loss_sum(logits, labels):
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def train_alone(steps=1):
    """The oracle: plain SGD on the mean loss of whole batches; last loss and gradients."""
    model = tiny_gpt()
    for step in range(steps):
        input_ids, labels = batch(step)
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(input_ids).flatten(0, 1), labels.flatten())
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def train_on_rank(name, steps=1):
    stages = split_into_stages(tiny_gpt(), STAGES[name] * dist.get_world_size())
    schedule = make_schedule(name, stages, num_micro_batches=NUM_MICRO_BATCHES, loss_sum=loss_sum)
    optimizer = torch.optim.SGD(schedule.parameters(), lr=0.5)
    for step in range(steps):
        input_ids, labels = batch(step)
        optimizer.zero_grad()
        loss = schedule.step(input_ids, labels, num_valid=int((labels != -100).sum()))
        optimizer.step()
    return loss, gradients(schedule.stages)


def gradients(stages):
    return {name: p.grad for stage in stages for name, p in stage.named_parameters()}


def joined(results):
    """The loss of the one rank that has it, and the gradients of all."""
    (loss,) = [loss for loss, _ in results if loss is not None]
    return loss.item(), {name: grad for _, grads in results for name, grad in grads.items()}


def is_close(result, oracle):
    (loss, grads), (expected, expected_grads) = result, oracle
    assert grads.keys() == expected_grads.keys()
    pairs = [(grads[name], expected_grads[name]) for name in grads]
    return loss == pytest.approx(expected, rel=1e-12) and all(
        torch.allclose(a, b, rtol=1e-12, atol=1e-15) for a, b in pairs
    )


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("name", STAGES)
def test_a_pipeline_trains_as_the_whole_model_does(name, world_size):
    assert is_close(joined(launch(train_on_rank, world_size, name, steps=3)), train_alone(steps=3))


def torchs_mean_of_means():
    """The famous bug: a mean per micro-batch, and torch divides by their number."""
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    module = split_into_stages(tiny_gpt(), num_ranks)[rank]
    stage = pipelining.PipelineStage(module, rank, num_ranks, torch.device("cpu"))

    def mean(logits, labels):
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    schedule = pipelining.ScheduleGPipe(stage, NUM_MICRO_BATCHES, loss_fn=mean)
    input_ids, labels = batch(0)
    losses = [] if rank == num_ranks - 1 else None
    target = labels if rank == num_ranks - 1 else None
    schedule.step(*([input_ids] if rank == 0 else []), target=target, losses=losses)
    return torch.stack(losses).mean().detach() if losses else None, gradients([module])


def test_oracle_rejects_the_mean_of_means():
    result, oracle = joined(launch(torchs_mean_of_means, 2)), train_alone()
    assert not is_close(result, oracle)
    assert result[0] == pytest.approx(oracle[0], rel=0.5)  # near enough that nobody would see it
