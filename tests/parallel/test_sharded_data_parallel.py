"""ZeRO, FSDP and HSDP on 2 and 4 real gloo processes against one process, in float64.

The oracle trains on whole batches with torch alone. Only the order of summation differs: 1e-12 relative.
"""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig
from coursekit.parallel import (
    StateBytes,
    check_optimizer,
    count_communication,
    launch,
    measure_state_bytes,
    replicate,
    ring_bytes_sent,
    shard_batch,
    shard_model,
    shard_optimizer,
    zero_bytes_per_rank,
    zero_bytes_sent,
)
from coursekit.train import accumulate_gradients, split_into_micro_batches

STEPS = 3
two_and_four = pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def tiny_gpt(tie_embeddings=False):
    """A GPT whose every first dim is a multiple of 4, so that shards need no padding."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "max_seq_len": 8, "d_model": 8, "n_layers": 2, "n_heads": 2}
    return GPT(GPTConfig(**sizes, tie_embeddings=tie_embeddings)).double()


def batch(step=0):
    """Token ids and labels; the first half of the rows has few labels, so ranks count unequal tokens."""
    generator = torch.Generator().manual_seed(step)
    input_ids = torch.randint(16, (8, 8), generator=generator)
    labels = torch.randint(16, (8, 8), generator=generator)
    labels[:4, 1:] = -100
    return input_ids, labels


def loss_sum(model, input_ids, labels):
    return nn.functional.cross_entropy(model(input_ids).flatten(0, 1), labels.flatten(), reduction="sum")


@functools.cache
def train_alone(tie_embeddings=False):
    """The oracle: AdamW on the mean loss of whole batches; parameters after the last step."""
    model = tiny_gpt(tie_embeddings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(STEPS):
        input_ids, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(input_ids).flatten(0, 1), labels.flatten()).backward()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def fsdp(model):
    return adamw(shard_model(model))


def zero_2(model):
    return adamw(shard_model(model, reshard_after_forward=False))


def hsdp(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size() // 2, 2), mesh_dim_names=("copies", "shards"))
    return adamw(shard_model(model, mesh))


def zero_1(model):
    model = replicate(model)
    return model, shard_optimizer(model.parameters(), torch.optim.AdamW, lr=0.01, weight_decay=0.1)


def adamw(model):
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def optimizer_too_early(model):
    """The famous bug: the optimizer keeps the tensors that sharding replaced."""
    _, optimizer = adamw(model)
    return shard_model(model), optimizer


def train_on_rank(wrap, tie_embeddings=False, forget_average=False):
    dp_rank, dp_size = dist.get_rank(), dist.get_world_size()
    model, optimizer = wrap(tiny_gpt(tie_embeddings))
    for step in range(STEPS):
        whole = batch(step)
        num_valid = int((whole[1] != -100).sum())
        micro_batches = split_into_micro_batches(shard_batch(whole, dp_rank=dp_rank, dp_size=dp_size), 1)
        optimizer.zero_grad()
        accumulate_gradients(
            lambda rows: loss_sum(model, *rows),
            micro_batches,
            num_valid=num_valid,
            dp_size=dp_size * dp_size if forget_average else dp_size,  # a sum is N times the mean
            module=model,
        )
        optimizer.step()
    return {
        name.removeprefix("module."): (p.full_tensor() if isinstance(p, DTensor) else p).detach()
        for name, p in model.named_parameters()
    }


def is_close(parameters, others, rtol=1e-12):
    assert parameters.keys() == others.keys()
    return all(torch.allclose(parameters[name], others[name], rtol=rtol, atol=1e-14) for name in others)


def train_every_way():
    return {
        **{wrap.__name__: train_on_rank(wrap) for wrap in (zero_1, zero_2, fsdp, hsdp)},
        "tied": train_on_rank(fsdp, tie_embeddings=True),
        "sum": train_on_rank(fsdp, forget_average=True),
        "too early": train_on_rank(optimizer_too_early),
    }


@functools.cache
def trained(world_size):
    """Every rank's results of every way; one launch, since ranks import torch's sharding anew in each."""
    return launch(train_every_way, world_size)


@two_and_four
@pytest.mark.parametrize("way", ["zero_1", "zero_2", "fsdp", "hsdp"])
def test_sharded_ranks_train_as_one_process_does(way, world_size):
    for results in trained(world_size):
        assert is_close(results[way], train_alone())


def test_tied_embeddings_stay_tied():
    for results in trained(2):
        assert is_close(results["tied"], train_alone(tie_embeddings=True))


def test_oracle_rejects_a_sum_in_place_of_the_mean():
    for results in trained(2):
        assert not is_close(results["sum"], train_alone())


def test_oracle_rejects_an_optimizer_made_before_sharding():
    for parameters in (results["too early"] for results in trained(2)):
        assert is_close(parameters, dict(tiny_gpt().named_parameters()), rtol=0)  # nothing was trained
        assert not is_close(parameters, train_alone(), rtol=1e-3)


def measured_steps():
    """What a rank sends in a step, and keeps after it, by way of wrapping."""
    measured = {}
    for wrap in (zero_1, zero_2, fsdp, hsdp):
        model, optimizer = wrap(tiny_gpt())
        for _ in range(3):  # the first two steps of DDP also settle its buckets
            optimizer.zero_grad()
            with count_communication() as communication:
                loss_sum(model, *batch()).backward()
                optimizer.step()
        measured[wrap.__name__] = communication, measure_state_bytes(model, optimizer)
    return measured


@functools.cache
def measured(world_size):
    return launch(measured_steps, world_size)


def sent(world_size, name):
    return measured(world_size)[0][name][0]


def kept(world_size, name):
    return [result[name][1] for result in measured(world_size)]


WHOLE = sum(parameter.nbytes for parameter in tiny_gpt().parameters())
REST = WHOLE - sum(parameter.nbytes for parameter in tiny_gpt().blocks.parameters())  # outside the blocks


@two_and_four
def test_keeping_parameters_sends_what_zero_2_does(world_size):
    communication = sent(world_size, "zero_2")
    assert communication.payload_bytes == {"reduce_scatter": WHOLE, "all_gather": WHOLE}
    assert communication.ring_bytes == zero_bytes_sent(WHOLE, stage=2, dp_size=world_size)


@two_and_four
def test_fsdp_sends_what_zero_3_does_for_blocks_and_zero_2_for_the_rest(world_size):
    communication = sent(world_size, "fsdp")
    assert communication.payload_bytes == {"reduce_scatter": WHOLE, "all_gather": 2 * WHOLE - REST}
    blocks = zero_bytes_sent(WHOLE - REST, stage=3, dp_size=world_size)
    assert communication.ring_bytes == blocks + zero_bytes_sent(REST, stage=2, dp_size=world_size)


@pytest.mark.slow
def test_hsdp_shards_among_two_and_reduces_shards_between_copies():
    communication = sent(4, "hsdp")
    assert {call.group_size for call in communication.records} == {2}
    assert communication.payload_bytes == {
        "reduce_scatter": WHOLE,
        "all_gather": 2 * WHOLE - REST,
        "all_reduce": WHOLE // 2,
    }


@two_and_four
def test_torchs_zero_1_sends_half_as_much_again_as_the_papers(world_size):
    communication = sent(world_size, "zero_1")
    assert communication.payload_bytes == {"all_reduce": WHOLE, "broadcast": WHOLE}
    data_parallel = ring_bytes_sent("all_reduce", WHOLE, world_size)
    assert data_parallel == zero_bytes_sent(WHOLE, stage=1, dp_size=world_size)
    assert communication.ring_bytes == 1.5 * data_parallel


@two_and_four
def test_bytes_kept_are_those_of_the_formula(world_size):
    num_params = WHOLE // 8
    float64 = {"param_bytes": 8, "gradient_bytes": 8, "optimizer_bytes": 16}
    for name, shards in (("fsdp", world_size), ("hsdp", 2)):
        expected = zero_bytes_per_rank(num_params, stage=3, dp_size=shards, **float64)
        assert kept(world_size, name) == [expected] * world_size
    expected = zero_bytes_per_rank(num_params, stage=1, dp_size=world_size, **float64)
    mine = kept(world_size, "zero_1")
    assert {(b.parameters, b.gradients) for b in mine} == {(expected.parameters, expected.gradients)}
    # Whole parameters are dealt out, so ranks differ; the formula is their mean.
    assert sum(b.optimizer for b in mine) / world_size == expected.optimizer


def two_steps(device):
    """The same as FSDP on one rank and as a plain model, on one device; the largest difference."""
    models = [shard_model(tiny_gpt().to(device)), tiny_gpt().to(device)]
    for model in models:
        _, optimizer = adamw(model)
        for step in range(2):
            optimizer.zero_grad()
            loss_sum(model, *(tensor.to(device) for tensor in batch(step))).backward()
            optimizer.step()
    whole = [p.full_tensor() for p in models[0].parameters()]
    return max((a - b).abs().max().item() for a, b in zip(whole, models[1].parameters(), strict=True))


@pytest.mark.parametrize(
    ("device", "backend"),
    [
        ("cpu", "gloo"),
        pytest.param("cuda", "nccl", marks=[pytest.mark.gpu, needs_cuda]),
    ],
)
def test_one_rank_alone_trains_as_the_plain_model_does(device, backend):
    assert max(launch(two_steps, 1, device, backend=backend)) < 1e-12


def loaded_after_meta():
    """Whether a model sharded before it had memory, then given weights, computes as the whole one does."""
    with torch.device("meta"):
        model = GPT(tiny_gpt().config).double()
    shard_model(model).to_empty(device="cpu")
    whole = tiny_gpt()
    set_model_state_dict(model, whole.state_dict(), options=StateDictOptions(full_state_dict=True))
    local = sum(p.to_local().numel() for p in model.parameters())
    return torch.equal(model(batch()[0]), whole(batch()[0])), local


def test_a_model_may_be_sharded_before_it_has_memory():
    assert launch(loaded_after_meta, 2) == [(True, WHOLE // 8 // 2)] * 2


def low_precision():
    model, optimizer = adamw(shard_model(tiny_gpt().float(), compute_dtype=torch.bfloat16))
    seen = {}
    model.blocks[0].register_forward_hook(lambda block, inputs, output: seen.update(compute=output.dtype))
    with count_communication() as communication:
        loss_sum(model, *batch()).backward()
    optimizer.step()
    kept = {p.dtype for p in model.parameters()} | {p.grad.dtype for p in model.parameters()}
    state = {v.dtype for s in optimizer.state.values() for v in s.values()}
    return seen["compute"], kept | state, communication.payload_bytes["reduce_scatter"]


def test_low_precision_computes_and_travels_while_shards_stay_whole():
    compute_dtype, kept, sent = launch(low_precision, 2)[0]
    assert compute_dtype == torch.bfloat16
    assert kept == {torch.float32}
    assert sent == 2 * sum(parameter.numel() for parameter in tiny_gpt().parameters())


def refusals():
    """What is said of wrong calls."""
    calls = {
        "twice": lambda: shard_model(shard_model(tiny_gpt())),
        "no blocks": lambda: shard_model(nn.Linear(2, 2)),
        "foreign block": lambda: shard_model(nn.Linear(2, 2), blocks=[nn.Linear(2, 2)]),
        "mesh": lambda: shard_model(
            tiny_gpt(), init_device_mesh("cpu", (2, 1, 1), mesh_dim_names=("a", "b", "c"))
        ),
        "optimizer": lambda: shard_optimizer(shard_model(tiny_gpt()).parameters(), torch.optim.AdamW),
        "too early": lambda: check_optimizer(*reversed(optimizer_too_early(tiny_gpt()))),
        "in time": lambda: check_optimizer(*reversed(fsdp(tiny_gpt()))),
    }
    said = {}
    for case, call in calls.items():
        try:
            call()
        except InputError as error:
            said[case] = str(error)
    return said


@functools.cache
def refused():
    return launch(refusals, 2)[0]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("twice", "sharded already; call shard_model once"),
        ("no blocks", "a model with .blocks, or the argument blocks, got Linear"),
        ("foreign block", "expected modules inside the model, got Linear"),
        ("mesh", "one axis (FSDP) or two (HSDP), got ('a', 'b', 'c')"),
        ("optimizer", "the parameters are sharded already; use a plain optimizer"),
    ],
)
def test_what_cannot_be_sharded_is_told_why(case, message):
    assert message in refused()[case]


def test_an_optimizer_made_before_sharding_is_found():
    count = len(list(tiny_gpt().parameters()))
    said = f"{count} of {count} parameters that are not in the model; call shard_model first"
    assert said in refused()["too early"]
    assert "in time" not in refused()


def test_without_a_process_group_the_error_names_launch():
    with pytest.raises(InputError, match="launch"):
        shard_model(tiny_gpt())
    with pytest.raises(InputError, match="launch"):
        shard_optimizer(tiny_gpt().parameters(), torch.optim.AdamW)


@pytest.mark.parametrize("formula", [zero_bytes_sent, zero_bytes_per_rank])
@pytest.mark.parametrize(("stage", "dp_size"), [(4, 2), (-1, 2), (1, 0)])
def test_no_such_stage_or_no_ranks_is_an_error(formula, stage, dp_size):
    with pytest.raises(InputError):
        formula(10, stage=stage, dp_size=dp_size)


def test_total_is_the_sum():
    assert StateBytes(1, 2, 4).total == 7
