"""Bytes that the planner expects a rank to send, against those that real ranks of every axis send."""

import pytest
import torch
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn.functional import cross_entropy

from coursekit import plan
from coursekit.formulas import communication as formulas
from coursekit.models import GPT, GPTConfig, use_experts
from coursekit.parallel import (
    ZeroOptimizerNaive,
    context_parallelize,
    count_communication,
    launch,
    make_mesh,
    make_schedule,
    replicate,
    shard_model,
    split_into_stages,
    spread_experts,
    tensor_parallelize,
)

B, T, V, D, LAYERS = 4, 16, 64, 32, 4
SHAPE = GPTConfig(
    V, T, d_model=D, n_layers=LAYERS, n_heads=4, n_kv_heads=4, d_ff=64, position="rope", tie_embeddings=False
)
RECIPE = "fp32_16"  # every number has 4 bytes, as on these ranks


def predicted(layout, shape=SHAPE, **options):
    return plan.communication(shape, layout, seq_len=T, recipe=RECIPE, **options)


def make_model(shape=SHAPE):
    torch.manual_seed(0)
    return GPT(shape)


def batch(rows=B):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(V, (2, rows, T), generator=generator)


def forward_backward(model, ids, labels, **options):
    cross_entropy(model(ids, **options).flatten(0, 1), labels.flatten()).backward()


def ring_bytes(step):
    """Return the bytes that this rank sends in a third step: the first ones set things up."""
    step()
    step()
    with count_communication() as sent:
        step()
    return sent.ring_bytes


def replicated():
    model = replicate(make_model())
    return ring_bytes(lambda: forward_backward(model, *batch()))


def optimizer_sharded():
    model = make_model()
    optimizer = ZeroOptimizerNaive(model.parameters(), lambda shard: torch.optim.SGD(shard, lr=0.1))

    def step():
        forward_backward(model, *batch())
        optimizer.step()

    return ring_bytes(step)


def parameters_sharded():
    model = shard_model(make_model())

    def step():
        for _ in range(3):
            forward_backward(model, *batch())

    return ring_bytes(step)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize(
    ("on_rank", "layout"),
    [
        (replicated, {"zero_stage": 0}),
        (optimizer_sharded, {"zero_stage": 1}),
        (parameters_sharded, {"zero_stage": 3, "grad_accum_steps": 3}),
    ],
)
def test_data_parallel_ranks_send_what_is_predicted(on_rank, layout, world_size):
    expected = predicted(plan.Layout(dp_size=world_size, **layout)).total
    assert launch(on_rank, world_size) == pytest.approx([expected] * world_size, rel=1e-12)


def tensor_parallel(sequence_parallel=False):
    model = make_model()
    tensor_parallelize(
        model, make_mesh(tp=2, dp=1)["tp"], sequence_parallel=sequence_parallel, loss_parallel=True
    )

    def step():
        with loss_parallel():
            forward_backward(model, *batch())

    return ring_bytes(step)


def test_tensor_parallel_ranks_send_what_is_predicted():
    expected = predicted(plan.Layout(tp_size=2, micro_batch_size=B)).total
    assert launch(tensor_parallel, 2) == pytest.approx([expected] * 2, rel=1e-12)


def test_sequence_parallelism_sends_as_much_and_the_gradients_of_norms():
    hidden = B * T * D * 4
    whole = formulas.tensor_parallel_bytes(hidden, LAYERS, True, True, 2, True, False, "none")
    assert whole == formulas.tensor_parallel_bytes(hidden, LAYERS, True, True, 2, False, False, "none")
    norms = formulas.ring_all_reduce(4 * (2 * LAYERS + 1) * 2 * D, 2)
    # coursekit.parallel reduces the embedding's output whole and then takes a part, which is one pass more.
    embedding = formulas.ring_pass(hidden, 2)
    expected = whole + formulas.loss_parallel_bytes(B * T, 2, True) + norms + embedding
    assert launch(tensor_parallel, 2, True) == pytest.approx([expected] * 2, rel=1e-12)


def pipelined(world_size):
    stages = split_into_stages(make_model(), world_size)
    loss_sum = torch.nn.CrossEntropyLoss(reduction="sum")
    schedule = make_schedule(
        "1f1b",
        stages,
        num_micro_batches=8,
        loss_sum=lambda logits, labels: loss_sum(logits.flatten(0, 1), labels.flatten()),
    )
    ids, labels = batch(8)
    return ring_bytes(lambda: schedule.step(ids, labels, num_valid=labels.numel()))


@pytest.mark.parametrize("world_size", [2, 4])
def test_pipeline_ranks_send_what_is_predicted(world_size):
    layout = plan.Layout(pp_size=world_size, grad_accum_steps=8)
    expected = [predicted(layout, stage=stage).total for stage in range(world_size)]
    assert launch(pipelined, world_size, world_size) == pytest.approx(expected, rel=1e-12)


def context_parallel():
    mesh = make_mesh(cp=2, dp=1)["cp"]
    model = context_parallelize(make_model(), mesh, method="gather")
    positions = torch.arange(T).chunk(2)[mesh.get_local_rank()]
    ids, labels = batch()[:, :, positions]
    return ring_bytes(lambda: forward_backward(model, ids, labels, positions=positions))


def test_context_parallel_ranks_send_what_is_predicted():
    layout = plan.Layout(cp_size=2, micro_batch_size=B)
    expected = predicted(layout)["context"]
    assert launch(context_parallel, 2) == pytest.approx([expected] * 2, rel=1e-12)


def expert_parallel(top_k):
    torch.manual_seed(0)
    model = GPT(SHAPE)
    use_experts(model, 4, top_k=top_k)
    spread_experts(model, make_mesh(ep=2, dp=1)["ep"])
    with count_communication() as sent:
        forward_backward(model, *batch())
    # Small ones tell how many rows will come; half of each payload is for the rank itself.
    payloads = [call.payload_bytes for call in sent.records if call.collective == "all_to_all"]
    return sum(payload / 2 for payload in payloads if payload > 4 * D)


def test_expert_parallel_ranks_send_what_is_predicted():
    # With k = E every token goes to every expert, and routing is even.
    experts = plan.ExpertLayers(4, top_k=4)
    expected = predicted(plan.Layout(ep_size=2, micro_batch_size=B), experts=experts)["expert"]
    assert launch(expert_parallel, 2, 4) == pytest.approx([expected] * 2, rel=1e-12)


def test_a_missing_backward_all_reduce_would_be_noticed():
    # Topic 7's trap: two all-reduces a layer, forgetting those of the backward pass.
    hidden, layers = B * T * D * 4, LAYERS
    right = predicted(plan.Layout(tp_size=2, micro_batch_size=B))["tensor"]
    assert right - 2 * layers * formulas.ring_all_reduce(hidden, 2) < 0.6 * right


def test_without_axes_nothing_is_sent():
    assert predicted(plan.Layout()).total == 0
