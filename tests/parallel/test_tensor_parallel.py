"""Tensor parallelism on 2 and 4 real gloo processes against one process, in float64."""

import contextlib
import functools

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel

from coursekit.models import GPTConfig, generate, use_experts
from coursekit.parallel import count_communication, launch, make_mesh, tensor_parallelize

from .sharded_gpt import (
    ATOL,
    BATCH_SIZE,
    D_MODEL,
    GPT2,
    GROUPED,
    LLAMA,
    N_LAYERS,
    RTOL,
    SEQ_LEN,
    SHAPE,
    STEPS,
    VOCAB_SIZE,
    error_of,
    make_batches,
    make_model,
    mean_loss,
    train,
    train_alone,
    wrong_names,
)

CASES = {
    "plain": (GPT2, {}),
    "plain llama": (LLAMA, {}),
    "sequence parallel": (GPT2, {"sequence_parallel": True}),
    "loss parallel": (GPT2, {"loss_parallel": True}),
    "both llama": (LLAMA, {"sequence_parallel": True, "loss_parallel": True}),
    "grouped heads": (GROUPED, {"sequence_parallel": True}),
}
FOUR_RANKS = pytest.param(4, marks=pytest.mark.slow)
STREAM_BYTES = 8 * BATCH_SIZE * SEQ_LEN * D_MODEL
LOGIT_BYTES = 8 * BATCH_SIZE * SEQ_LEN * VOCAB_SIZE
NORM_BYTES = 8 * D_MODEL


def tp_mesh():
    return make_mesh(tp=dist.get_world_size())["tp"]


def divided_model(case):
    config, options = CASES[case]
    return tensor_parallelize(make_model(config), tp_mesh(), **options)


def in_loss_parallel(case):
    return loss_parallel() if CASES[case][1].get("loss_parallel") else contextlib.nullcontext()


def train_case(case):
    with in_loss_parallel(case):
        return train(divided_model(case), loss_of=mean_loss)


def count_case(case):
    """Return what forward and backward pass of one step communicate."""
    input_ids, labels = make_batches()[0]
    model = divided_model(case)
    with in_loss_parallel(case):
        with count_communication() as forward:
            loss = mean_loss(model(input_ids), labels)
        with count_communication() as backward:
            loss.backward()
    return forward, backward


def on_rank():
    """Return all that the tests look at: the modules that a new process imports take longest."""
    cases = [case for case in CASES if dist.get_world_size() == 2 or case != "grouped heads"]  # 2 heads
    return {
        "trained": {case: train_case(case) for case in cases},
        "counted": {case: count_case(case) for case in ("plain", "sequence parallel", "loss parallel")},
        "clipped": {case: clip_and_accumulate(case) for case in ("plain", "sequence parallel")},
        "dropped": {same_seed: with_dropout(same_seed) for same_seed in (True, False)},
        "parameter_bytes": parameter_bytes(),
        "generated": continued(divided_model("plain llama")),
    }


@functools.cache
def launched(world_size):
    return launch(on_rank, world_size)


def results(what, world_size):
    return [of_rank[what] for of_rank in launched(world_size)]


@pytest.mark.parametrize(
    ("case", "world_size"),
    [
        *((case, 2) for case in CASES),
        *(pytest.param(case, 4, marks=pytest.mark.slow) for case in CASES if case != "grouped heads"),
    ],
)
def test_losses_gradients_and_three_steps_equal_one_process(case, world_size):
    losses, gradients, parameters = train_alone(CASES[case][0])
    for of_rank in results("trained", world_size):
        its_losses, its_gradients, its_parameters = of_rank[case]
        torch.testing.assert_close(its_losses, losses, rtol=RTOL, atol=0)
        assert not wrong_names(its_gradients, gradients)
        assert not wrong_names(its_parameters, parameters)
        assert len(its_losses) == STEPS


def test_the_oracle_tells_one_step_from_none():
    _, _, parameters = train_alone(GPT2)
    start = {name: parameter.detach() for name, parameter in make_model(GPT2).named_parameters()}
    assert wrong_names(start, parameters) == parameters.keys()


@pytest.mark.parametrize("world_size", [2, FOUR_RANKS])
def test_plain_sends_the_stream_four_times_a_block(world_size):
    """2 all-reduces a block in each pass; one more of the embedding, and of the head's backward pass."""
    for counts in results("counted", world_size):
        forward, backward = counts["plain"]
        assert forward.calls == {"all_reduce": 2 * N_LAYERS + 1, "all_gather": 1}
        assert forward.payload_bytes["all_reduce"] == (2 * N_LAYERS + 1) * STREAM_BYTES
        assert forward.payload_bytes["all_gather"] == LOGIT_BYTES
        assert backward.calls == {"all_reduce": 2 * N_LAYERS + 1}
        assert backward.payload_bytes == {"all_reduce": (2 * N_LAYERS + 1) * STREAM_BYTES}


@pytest.mark.parametrize("world_size", [2, FOUR_RANKS])
def test_loss_parallel_does_not_gather_the_logits(world_size):
    for counts in results("counted", world_size):
        assert "all_gather" not in counts["loss parallel"][0].calls


@pytest.mark.parametrize("world_size", [2, FOUR_RANKS])
def test_sequence_parallelism_gathers_and_scatters_what_plain_reduces(world_size):
    for counts in results("counted", world_size):
        forward, backward = counts["sequence parallel"]
        # One gather more: into the head. The embedding's all-reduce stays.
        assert forward.calls["reduce_scatter"] == 2 * N_LAYERS
        assert forward.payload_bytes["reduce_scatter"] == 2 * N_LAYERS * STREAM_BYTES
        assert forward.payload_bytes["all_gather"] == (2 * N_LAYERS + 1) * STREAM_BYTES + LOGIT_BYTES
        # Mirrored; and one gather more, where the sequence was divided.
        assert backward.payload_bytes["reduce_scatter"] == (2 * N_LAYERS + 1) * STREAM_BYTES
        assert backward.payload_bytes["all_gather"] == (2 * N_LAYERS + 1) * STREAM_BYTES
        num_norms = 2 * N_LAYERS + 1
        assert backward.payload_bytes["all_reduce"] == num_norms * 2 * NORM_BYTES  # weight and bias


def test_sequence_parallelism_sends_as_many_bytes_in_the_blocks():
    plain, parallel = (
        sum(part.ring_bytes for part in results("counted", 2)[0][case])
        for case in CASES
        if case in ("plain", "sequence parallel")
    )
    norms_and_entry = (2 * N_LAYERS + 1) * 2 * NORM_BYTES + STREAM_BYTES / 2
    assert parallel - plain == pytest.approx(norms_and_entry)


def clip_and_accumulate(case):
    """Return the norm that clipping reports, and the gradients of two accumulated halves of a batch."""
    model = divided_model(case)
    input_ids, labels = make_batches()[0]
    for half in (slice(0, 2), slice(2, 4)):
        (mean_loss(model(input_ids[half]), labels[half]) / 2).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    layouts = {p.grad.placements == p.placements for p in model.parameters()}
    return norm.full_tensor(), {name: p.grad.full_tensor() for name, p in model.named_parameters()}, layouts


@pytest.mark.parametrize("case", ["plain", "sequence parallel"])
def test_accumulated_gradients_clip_as_those_of_one_process(case):
    model = make_model(GPT2)
    mean_loss(model(make_batches()[0][0]), make_batches()[0][1]).backward()
    expected = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for of_rank in results("clipped", 2):
        norm, its_gradients, layouts = of_rank[case]
        torch.testing.assert_close(norm, expected, rtol=RTOL, atol=0)
        assert not wrong_names(its_gradients, gradients)
        assert layouts == {True}  # divided as the parameters: no rank holds more than its part


def with_dropout(same_seed):
    """Return this rank's gradients of the norms, which are not divided."""
    config = GPTConfig(**SHAPE, dropout=0.5)
    model = tensor_parallelize(make_model(config), tp_mesh())
    torch.manual_seed(7 if same_seed else dist.get_rank())
    input_ids, labels = make_batches()[0]
    mean_loss(model(input_ids), labels).backward()
    return torch.cat([p.grad.to_local() for name, p in model.named_parameters() if "norm" in name])


def test_with_dropout_ranks_seeded_alike_hold_equal_copies_and_others_do_not():
    first, second = results("dropped", 2)
    assert torch.equal(first[True], second[True])
    assert not torch.allclose(first[False], second[False])


def parameter_bytes():
    model = divided_model("plain")
    return sum(p.to_local().nbytes for p in model.parameters() if isinstance(p, DTensor))


def test_matrices_are_divided_and_the_rest_is_not():
    model = make_model(GPT2)
    divided = sum(
        p.nbytes
        for name, p in model.named_parameters()
        if name.rpartition(".")[0].endswith(("q_proj", "k_proj", "v_proj", "up_proj", "token_embedding"))
        or name.endswith(("o_proj.weight", "down_proj.weight"))
    )
    whole = sum(p.nbytes for p in model.parameters()) - divided
    assert results("parameter_bytes", 2) == [whole + divided // 2] * 2


def continued(model):
    return generate(model, make_batches()[0][0][:, :3], SEQ_LEN - 3, temperature=0)


def test_a_divided_model_generates_what_the_whole_one_does():
    """With a cache of keys and values that holds this rank's heads."""
    expected = continued(make_model(LLAMA))
    assert all(torch.equal(generated, expected) for generated in results("generated", 2))


def errors():
    wrong = {
        "heads": {"n_heads": 8, "n_kv_heads": 2},
        "vocab": {"vocab_size": 50257},
        "d_ff": {"d_ff": 30},
    }
    found = {
        name: error_of(tensor_parallelize, make_model(GPTConfig(**SHAPE | sizes)), tp_mesh())
        for name, sizes in wrong.items()
    }
    found["mesh"] = error_of(tensor_parallelize, make_model(GPT2), make_mesh(tp=2))
    model = tensor_parallelize(make_model(GPT2), tp_mesh(), sequence_parallel=True)
    found["twice"] = error_of(tensor_parallelize, model, tp_mesh())
    found["sequence"] = error_of(model, make_batches()[0][0][:, :6])
    stage = make_model(GPT2)
    stage.lm_head = None
    found["stage"] = error_of(tensor_parallelize, stage, tp_mesh(), sequence_parallel=True)
    found["model"] = error_of(tensor_parallelize, torch.nn.Linear(4, 4), tp_mesh())
    mixture = make_model(GPT2)
    use_experts(mixture, n_experts=4)
    found["experts"] = error_of(tensor_parallelize, mixture, tp_mesh())
    return found


def test_what_does_not_divide_is_told_what_would():
    found = launch(errors, 4)[0]
    assert (
        "n_kv_heads does not divide among the tensor-parallel ranks: "
        "expected a multiple of 4, as 4 is, got 2; or use 2 tensor-parallel ranks" in found["heads"]
    )
    assert "vocab_size" in found["vocab"]
    assert "as 50260 is, got 50257; make it larger" in found["vocab"]
    assert "d_ff" in found["d_ff"]
    assert "as 32 is, got 30; or use 2 tensor-parallel ranks" in found["d_ff"]
    assert 'one axis, as mesh["tp"]' in found["mesh"]
    assert "divided already" in found["twice"]
    assert "a multiple of 4, as 8 is, got 6 tokens" in found["sequence"]
    assert "a stage of a pipeline" in found["stage"]
    assert "expected GPT, got Linear; use torch.distributed" in found["model"]
    assert "spread them over the axis ep" in found["experts"]


def on_gpu(options):
    model = tensor_parallelize(make_model(GPT2).cuda(), make_mesh(tp=dist.get_world_size())["tp"], **options)
    input_ids, labels = (tensor.cuda() for tensor in make_batches()[0])
    loss = mean_loss(model(input_ids), labels)
    loss.backward()
    return loss.item(), {name: p.grad.full_tensor().cpu() for name, p in model.named_parameters()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"sequence_parallel": True}])
def test_on_gpus_loss_and_gradients_equal_one_process(options):
    model = make_model(GPT2)
    loss = mean_loss(model(make_batches()[0][0]), make_batches()[0][1])
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    world_size = 2 if torch.cuda.device_count() >= 2 else 1
    for its_loss, its_gradients in launch(on_gpu, world_size, options, backend="nccl"):
        assert its_loss == pytest.approx(loss.item(), rel=1e-10)  # other kernels, other order of summation
        for name, gradient in its_gradients.items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-9, atol=ATOL)
