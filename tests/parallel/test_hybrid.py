"""Several ways of dividing one training at once, on 4 and 8 real gloo processes, against one process."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.parallel import (
    average_gradients,
    average_gradients_bucketed,
    context_parallelize,
    launch,
    local_parts,
    make_mesh,
    make_schedule,
    merge_axes,
    sequence_indices,
    shard_batch,
    shard_model,
    split_into_stages,
    tensor_parallelize,
)
from coursekit.train import clip_gradients

from .sharded_gpt import (
    BATCH_SIZE,
    GPT2,
    GROUPED,
    LLAMA,
    RTOL,
    SEQ_LEN,
    make_batches,
    make_model,
    make_optimizer,
    mean_loss,
    train,
    train_alone,
    whole,
    wrong_names,
)

# Sizes of the mesh, the model, and whether parameters are sharded along dp.
LAYOUTS = {
    "dp × tp": ({"dp": 2, "tp": 2}, GPT2, False),
    "fsdp × tp": ({"dp": 2, "tp": 2}, GPT2, True),
    "cp × tp": ({"cp": 2, "tp": 2}, LLAMA, False),
    "dp × cp": ({"dp": 2, "cp": 2}, GPT2, False),
    "dp × cp × tp": ({"dp": 2, "cp": 2, "tp": 2}, LLAMA, False),
    "fsdp × cp × tp": ({"dp": 2, "cp": 2, "tp": 2}, LLAMA, True),
}


def train_in_layout(name):
    """The visible loop: three lines divide the model, two the batch, one averages the gradients."""
    sizes, config, is_sharded = LAYOUTS[name]
    mesh = make_mesh(**sizes)
    dp, cp, tp = (mesh[axis] for axis in ("dp", "cp", "tp"))
    model = tensor_parallelize(make_model(config), tp, sequence_parallel=tp.size() > 1)
    model = context_parallelize(model, cp, method="ring")
    tokens = merge_axes(mesh, "dp", "cp")
    if is_sharded:
        model = shard_model(model, tokens)
    mine = sequence_indices(SEQ_LEN, cp_rank=cp.get_local_rank(), cp_size=cp.size())
    batches = [
        [tensor[:, mine] for tensor in shard_batch(batch, dp_rank=dp.get_local_rank(), dp_size=dp.size())]
        for batch in make_batches()
    ]

    def average():
        if not is_sharded:  # FSDP has averaged in the backward pass
            average_gradients_bucketed(local_parts(model), group=tokens.get_group())

    losses, gradients, parameters = train(
        model, loss_of=mean_loss, batches=batches, after_backward=average, positions=mine
    )
    for loss in losses:
        dist.all_reduce(loss, group=tokens.get_group())
    return [loss / tokens.size() for loss in losses], gradients, parameters


def assert_trained_as_alone(names):
    """One launch for all layouts of as many ranks: what a new process imports takes longest."""
    world_size = math.prod(LAYOUTS[names[0]][0].values())
    on_ranks = launch(lambda: {name: train_in_layout(name) for name in names}, world_size)
    for name in names:
        losses, gradients, parameters = train_alone(LAYOUTS[name][1])
        for on_rank in on_ranks:
            its_losses, its_gradients, its_parameters = on_rank[name]
            torch.testing.assert_close(its_losses, losses, rtol=RTOL, atol=0)
            assert not wrong_names(its_gradients, gradients), name
            assert not wrong_names(its_parameters, parameters), name


def test_data_and_tensors_divided_on_four_processes_train_as_one_process_does():
    assert_trained_as_alone(["dp × tp"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("fsdp × tp", "cp × tp", "dp × cp"), ("dp × cp × tp", "fsdp × cp × tp")], ids=str
)
def test_every_layout_on_four_and_eight_processes_trains_as_one_process_does(names):
    assert_trained_as_alone(names)


# Sizes of the mesh, the schedule, and micro-batches.
PIPELINES = {
    "dp × pp": ({"pp": 2, "dp": 2}, "1f1b", 2),
    "pp × tp": ({"pp": 2, "tp": 2}, "1f1b", 4),
    "dp × pp × tp": ({"pp": 2, "dp": 2, "tp": 2}, "1f1b", 2),
    "zero-bubble dp × pp × tp": ({"pp": 2, "dp": 2, "tp": 2}, "zero_bubble", 2),
}


def loss_sum(logits, labels):
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def train_in_pipeline(name):
    """Return losses on the last stage, and the norms, first gradients and last parameters of this stage."""
    sizes, schedule_name, num_micro_batches = PIPELINES[name]
    mesh = make_mesh(**sizes)
    pp, dp, tp = (mesh[axis] for axis in ("pp", "dp", "tp"))
    stages = split_into_stages(make_model(GROUPED), pp.size())
    stage = tensor_parallelize(stages[pp.get_local_rank()], tp)
    schedule = make_schedule(
        schedule_name,
        stages,
        num_micro_batches=num_micro_batches,
        loss_sum=loss_sum,
        group=pp.get_group(),
    )
    optimizer, losses, norms, gradients = make_optimizer(stage), [], [], None
    for batch in make_batches():
        inputs, labels = shard_batch(batch, dp_rank=dp.get_local_rank(), dp_size=dp.size())
        optimizer.zero_grad()
        losses.append(schedule.step(inputs, labels, num_valid=BATCH_SIZE * SEQ_LEN, dp_size=dp.size()))
        average_gradients(local_parts(stage), dp.get_group())
        norms.append(clip_gradients(stage, 0.5, pp_group=pp.get_group()))
        gradients = gradients or {name: whole(p.grad).clone() for name, p in stage.named_parameters()}
        optimizer.step()
    return losses, norms, gradients, {name: whole(p.detach()) for name, p in stage.named_parameters()}


def clipped_alone():
    """The oracle, with torch's clipping."""
    model = make_model(GROUPED)
    norms = []
    losses, gradients, parameters = train(
        model,
        loss_of=mean_loss,
        after_backward=lambda: norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5)),
    )
    return losses, norms, gradients, parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("dp × pp", "pp × tp"), ("dp × pp × tp", "zero-bubble dp × pp × tp")], ids=str
)
def test_a_pipeline_with_other_axes_trains_as_one_process_does(names):
    losses, norms, gradients, parameters = clipped_alone()
    assert max(norms) > 0.5  # it clips
    world_size = math.prod(PIPELINES[names[0]][0].values())
    on_ranks = launch(lambda: {name: train_in_pipeline(name) for name in names}, world_size)
    for name in names:
        results = [on_rank[name] for on_rank in on_ranks]
        tp_size = PIPELINES[name][0].get("tp", 1)
        last_stages = [its_losses for its_losses, *_ in results if its_losses[0] is not None]
        total = [sum(parts) / tp_size for parts in zip(*last_stages, strict=True)]  # each tp rank has it
        torch.testing.assert_close(total, losses, rtol=RTOL, atol=0)
        for _, its_norms, its_gradients, its_parameters in results:
            torch.testing.assert_close(its_norms, norms, rtol=RTOL, atol=0)
            assert not wrong_names(its_gradients, {n: gradients[n] for n in its_gradients}), name
            assert not wrong_names(its_parameters, {n: parameters[n] for n in its_parameters}), name
        assert {n for _, _, its_gradients, _ in results for n in its_gradients} == gradients.keys()


def parts_of_a_model():
    model = tensor_parallelize(make_model(GPT2), make_mesh(tp=2)["tp"])
    model.final_norm.bias.requires_grad_(False)
    gradients_before = [parameter.grad for parameter in model.parameters()]
    parts = local_parts(model)
    for part in parts:
        part.data.fill_(3)
        if part.grad is not None:
            part.grad.fill_(7)
    return (
        set(gradients_before),
        {type(part) for part in parts},
        [p.to_local().unique().tolist() for p in model.parameters()],
        [
            (name, p.grad.to_local().unique().tolist())
            for name, p in model.named_parameters()
            if p.grad is not None
        ],
        len(list(model.parameters())),
    )


def test_local_parts_share_the_models_memory_and_make_gradients_where_there_are_none():
    for before, kinds, values, gradients, count in launch(parts_of_a_model, 2):
        assert before == {None}
        assert kinds == {nn.Parameter}
        assert values == [[3.0]] * count
        assert [gradient for _, gradient in gradients] == [[7.0]] * (count - 1)
        assert "final_norm.bias" not in dict(gradients)
