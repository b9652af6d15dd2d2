"""Pipelines of 2 and 4 real gloo processes against the model in one process, in float64.

The oracle computes the mean loss per valid token of the whole batch by one backward pass and uses no
coursekit code but the model. Only the order of summation differs, so the tolerance is 1e-12 relative.
"""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import pipelining

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig
from coursekit.parallel import (
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
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


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


@functools.cache
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


def train_by_every_schedule():
    return {name: train_on_rank(name, steps=3) for name in STAGES}


@functools.cache
def trained(world_size):
    """Every rank's results by schedule; one launch, since ranks import torch's pipelining anew in each."""
    return launch(train_by_every_schedule, world_size)


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STAGES)
def test_a_pipeline_trains_as_the_whole_model_does(name, world_size):
    assert is_close(joined([results[name] for results in trained(world_size)]), train_alone(steps=3))


def evaluate_between_steps(name):
    stages = split_into_stages(tiny_gpt(), STAGES[name] * dist.get_world_size())
    schedule = make_schedule(name, stages, num_micro_batches=NUM_MICRO_BATCHES, loss_sum=loss_sum)
    input_ids, labels = batch(0)
    num_valid = int((labels != -100).sum())
    losses = [schedule.evaluate(input_ids, labels, num_valid=num_valid)]
    no_gradients = all(p.grad is None for p in schedule.parameters())
    losses.append(schedule.step(input_ids, labels, num_valid=num_valid))
    losses.append(schedule.evaluate(input_ids, labels, num_valid=num_valid))
    return losses, no_gradients, (losses[1], gradients(schedule.stages))


def evaluate_by_every_schedule():
    return [evaluate_between_steps(name) for name in ("gpipe", "1f1b", "interleaved", "zero_bubble")]


def test_evaluation_between_steps_gives_the_loss_and_leaves_gradients_alone():
    for results in zip(*launch(evaluate_by_every_schedule, 2), strict=True):
        check_evaluation(results)


def check_evaluation(results):
    loss, _ = train_alone()
    assert results[0][0] == [None, None, None]
    assert [value.item() for value in results[1][0]] == pytest.approx([loss] * 3, rel=1e-12)
    assert all(no_gradients for _, no_gradients, _ in results)
    assert is_close(joined([result for _, _, result in results]), train_alone())


def stages_of_one_rank(device):
    """Both stages on one rank, and the whole model beside them on the same device."""
    model = tiny_gpt().to(device)
    input_ids, labels = (tensor.to(device) for tensor in batch(0))
    num_valid = int((labels != -100).sum())
    schedule = make_schedule(
        "interleaved", split_into_stages(model, 2), num_micro_batches=NUM_MICRO_BATCHES, loss_sum=loss_sum
    )
    result = schedule.step(input_ids, labels, num_valid=num_valid), gradients(schedule.stages)
    whole = tiny_gpt().to(device)
    loss = loss_sum(whole(input_ids), labels) / num_valid
    loss.backward()
    return is_close(result, (loss.item(), gradients([whole])))


@pytest.mark.parametrize(
    ("device", "backend"),
    [
        ("cpu", "gloo"),
        pytest.param("cuda", "nccl", marks=[pytest.mark.gpu, needs_cuda]),
    ],
)
def test_stages_may_share_a_rank(device, backend):
    assert launch(stages_of_one_rank, 1, device, backend=backend) == [True]


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


def order_of_1f1b():
    """What a rank of torch's 1F1B really computes, in order."""
    module = split_into_stages(tiny_gpt(), dist.get_world_size())[dist.get_rank()]
    stage = pipelining.PipelineStage(module, dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    order = []
    for kind, method in (("F", "forward_one_chunk"), ("B", "backward_one_chunk")):
        setattr(stage, method, recorded(getattr(stage, method), f"{stage.stage_index}{kind}", order))
    schedule = pipelining.Schedule1F1B(stage, NUM_MICRO_BATCHES, loss_fn=loss_sum, scale_grads=False)
    input_ids, labels = batch()
    schedule.step(*([input_ids] if stage.is_first else []), target=labels if stage.is_last else None)
    return order


def recorded(method, name, order):
    def record(micro_batch, *args, **kwargs):
        order.append(f"{name}{micro_batch}")
        return method(micro_batch, *args, **kwargs)

    return record


def test_torch_computes_in_the_order_of_our_1f1b():
    expected = one_f_one_b_schedule(4, NUM_MICRO_BATCHES)
    assert launch(order_of_1f1b, 4) == [[str(action) for action in actions] for actions in expected]


def two_pipelines(name):
    """Data parallelism of two pipelines, each with half of every batch, gradients averaged by DDP."""
    dp_rank, pp_rank = divmod(dist.get_rank(), 2)
    pipelines = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    copies = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    stages = split_into_stages(tiny_gpt(), 2)
    stages[pp_rank] = nn.parallel.DistributedDataParallel(stages[pp_rank], process_group=copies[pp_rank])
    schedule = make_schedule(name, stages, num_micro_batches=2, loss_sum=loss_sum, group=pipelines[dp_rank])
    input_ids, labels = batch(0)
    rows = slice(4 * dp_rank, 4 * dp_rank + 4)
    num_valid = int((labels != -100).sum())
    loss = schedule.step(input_ids[rows], labels[rows], num_valid=num_valid, dp_size=2)
    return loss, gradients([stages[pp_rank].module])


def test_data_parallel_pipelines_average_to_the_whole_batch():
    results = launch(two_pipelines, 4, "1f1b")
    loss = torch.stack([loss for loss, _ in results if loss is not None]).sum()
    for stages in (results[:2], results[2:]):
        grads = {name: grad for _, mine in stages for name, grad in mine.items()}
        assert is_close((loss.item(), grads), train_alone())


def step_once(rows=8, rows_after=None, num_valid=5, name="gpipe", num_stages=2, num_micro_batches=4):
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(num_stages)))
    schedule = make_schedule(
        name,
        split_into_stages(model, num_stages),
        num_micro_batches=num_micro_batches,
        loss_sum=lambda output, target: (output - target).square().sum(),
    )
    for count in [rows] if rows_after is None else [rows, rows_after]:
        schedule.step(torch.zeros(count, 3), torch.zeros(count, 3), num_valid=num_valid)


WRONG = [
    ({"rows": 6}, "a multiple of 4 rows, as 8 is, got 6 and 6"),
    ({"rows": 0}, "as 4 is, got 0 and 0"),
    ({"rows_after": 4}, "the inputs changed"),
    ({"num_valid": 0}, "num_valid > 0"),
    ({"num_valid": torch.tensor(0)}, "num_valid > 0, got 0"),
    ({"name": "dualpipe"}, "unknown schedule: expected gpipe, 1f1b"),
    ({"num_stages": 4}, "the stages do not fit 'gpipe': expected one stage a rank, 2, got 4"),
    ({"name": "zbv"}, "the stages do not fit 'zbv': expected two stages a rank, 4, got 2"),
    ({"name": "interleaved", "num_stages": 3}, "a multiple of the 2 ranks, got 3"),
    ({"name": "1f1b", "num_micro_batches": 1}, "the micro-batches do not fit '1f1b'"),
    ({"name": "zero_bubble", "num_micro_batches": 5}, "a multiple of the 2 ranks, got 5"),
    ({"num_micro_batches": 0}, "1 or more, got 0"),
]


def refusals():
    """What each rank says of wrong calls; in the end of an evaluation by zbv."""
    said = []
    for options, _ in WRONG:
        with pytest.raises(InputError) as error:
            step_once(**options)
        said.append(str(error.value))
    with pytest.raises(InputError) as error:
        evaluate_between_steps("zbv")
    return [*said, str(error.value)]


def test_what_does_not_fit_is_told_what_would_on_every_rank():
    first, second = launch(refusals, 2)
    assert first == second
    for (_, message), said in zip(WRONG, first, strict=False):
        assert message in said
    assert first[-1].startswith("'zbv' cannot evaluate; use another schedule")


def test_without_a_process_group_the_error_names_launch():
    with pytest.raises(InputError, match="launch"):
        make_schedule("gpipe", [tiny_gpt()], num_micro_batches=1, loss_sum=loss_sum)


def spans_of_a_step():
    stages = split_into_stages(tiny_gpt(), dist.get_world_size())
    schedule = make_schedule("1f1b", stages, num_micro_batches=NUM_MICRO_BATCHES, loss_sum=loss_sum)
    schedule.step(*batch(), num_valid=1)
    with record_spans() as spans:
        schedule.step(*batch(), num_valid=1)
    return spans


def test_the_idle_share_of_a_real_step_is_measured():
    assert 0 < measure_idle_share(launch(spans_of_a_step, 2)) < 1


def test_nothing_computed_is_an_error():
    with pytest.raises(InputError, match="no rank computed"):
        measure_idle_share([[], [Span("communicate", "send", 0.0, 1.0)]])
