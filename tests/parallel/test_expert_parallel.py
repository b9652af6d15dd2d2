"""Experts spread over 2 and 4 real gloo processes against one process, in float64.

The oracle of a layer computes every expert for every token and masks, and uses no coursekit code. Only the
order of summation differs, so the tolerance is 1e-12 relative.
"""

import copy
import functools

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, MoE, load_balancing_loss, record_routing, use_experts
from coursekit.parallel import (
    RankError,
    average_gradients,
    average_gradients_bucketed,
    average_gradients_with_experts,
    count_communication,
    launch,
    local_parts,
    make_mesh,
    merge_axes,
    spread_experts,
    spread_experts_naive,
    total_load,
)
from coursekit.train import clip_gradients

RTOL = 1e-12
N_EXPERTS, TOP_K, D = 4, 2, 6
two_and_four = pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
CONFIG = GPTConfig(vocab_size=13, max_seq_len=8, d_model=D, n_layers=2, n_heads=2, d_ff=10)


def layer_of(capacity_factor=None, n_experts=N_EXPERTS):
    torch.manual_seed(0)
    moe = MoE(CONFIG, n_experts, top_k=TOP_K, capacity_factor=capacity_factor).double()
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return moe


def tokens_of(rank, uneven=False):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(7 + 3 * rank * uneven, D, dtype=torch.float64, generator=generator)


def reference_layer(state, x, capacity):
    """The oracle: each expert on all tokens, times a gate that is zero where it was not chosen or is full."""
    probabilities = (x @ state["router.proj.weight"].T).softmax(-1)
    chosen = probabilities.argsort(-1, descending=True)[:, :TOP_K].tolist()
    mask = torch.zeros_like(probabilities)
    kept = torch.zeros_like(probabilities)
    taken = [0] * len(state["router.proj.weight"])
    for choice in range(TOP_K):
        for token, experts in enumerate(chosen):
            mask[token, experts[choice]] = 1
            kept[token, experts[choice]] = taken[experts[choice]] < capacity
            taken[experts[choice]] += 1
    gates = probabilities * mask / (probabilities * mask).sum(-1, keepdim=True) * kept
    y = 0
    for i in range(len(taken)):
        inside = F.gelu(x @ state["experts.up_proj"][i] + state["experts.up_bias"][i], approximate="tanh")
        y = y + gates[:, i, None] * (inside @ state["experts.down_proj"][i] + state["experts.down_bias"][i])
    return y, int(kept.sum())


def capacity_of(factor, n):
    return n if factor is None else -int(-factor * n * TOP_K // N_EXPERTS)


def layer_alone(world_size, factor, uneven):
    """Return (outputs by rank, input gradients by rank, parameter gradients) of the mean of the losses."""
    state = {name: value.clone().requires_grad_() for name, value in layer_of().state_dict().items()}
    inputs = [tokens_of(rank, uneven).requires_grad_() for rank in range(world_size)]
    outputs = [reference_layer(state, x, capacity_of(factor, len(x)))[0] for x in inputs]
    (sum(y.square().mean() for y in outputs) / world_size).backward()
    gradients = {name: value.grad for name, value in state.items()}
    return [y.detach() for y in outputs], [x.grad for x in inputs], gradients


def layer_on_rank(spread, factor, uneven, average=average_gradients_with_experts):
    moe = layer_of(factor)
    spread(moe)
    x = tokens_of(dist.get_rank(), uneven).requires_grad_()
    y = moe(x)
    y.square().mean().backward()
    average(moe)
    return y.detach(), x.grad, {name: local(parameter.grad) for name, parameter in moe.named_parameters()}


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def assert_same_layer(results, expected, world_size):
    outputs, input_gradients, gradients = expected
    for rank, (y, x_grad, mine) in enumerate(results):
        torch.testing.assert_close(y, outputs[rank], rtol=RTOL, atol=1e-14)
        # A rank's own loss has a gradient of N times its part of the mean.
        torch.testing.assert_close(x_grad, world_size * input_gradients[rank], rtol=RTOL, atol=1e-14)
        for name, gradient in mine.items():
            whole = gradients[name]
            share = whole.chunk(world_size)[rank] if name.startswith("experts") else whole
            torch.testing.assert_close(gradient, share, rtol=RTOL, atol=1e-14)


@two_and_four
@pytest.mark.parametrize("factor", [None, 0.7])
@pytest.mark.parametrize("uneven", [False, True])
def test_outputs_and_all_gradients_equal_one_process(world_size, factor, uneven):
    results = launch(layer_on_rank, world_size, spread_experts, factor, uneven)
    assert_same_layer(results, layer_alone(world_size, factor, uneven), world_size)


@two_and_four
@pytest.mark.parametrize("factor", [None, 0.7])
def test_the_naive_version_equals_one_process_as_well(world_size, factor):
    results = launch(layer_on_rank, world_size, spread_experts_naive, factor, False)
    assert_same_layer(results, layer_alone(world_size, factor, False), world_size)


def average_without_dividing_experts(model):
    """The famous bug: experts got a sum and all else a mean, so they learn N times as fast."""
    average_gradients(model.router)


def average_different_experts(model):
    """The other: the i-th expert of each rank, which are N different ones, are averaged."""
    average_gradients(local_parts(model))


@pytest.mark.parametrize("bug", [average_without_dividing_experts, average_different_experts])
def test_oracle_rejects(bug):
    expected = layer_alone(2, None, False)
    results = launch(layer_on_rank, 2, spread_experts, None, False, bug)
    with pytest.raises(AssertionError, match="not close"):
        assert_same_layer(results, expected, 2)


def one_way_traffic_on_rank():
    """All tokens of all ranks choose the experts of rank 0."""
    moe = layer_of()
    with torch.no_grad():
        moe.router.proj.weight.zero_()
        moe.router.proj.weight[:2] = 9 * torch.ones(2, D)
    spread_experts(moe)
    x = tokens_of(dist.get_rank()).abs().requires_grad_()
    y = moe(x)
    y.sum().backward()
    return y.detach(), {name: local(parameter.grad) for name, parameter in moe.named_parameters()}


def test_a_rank_whose_experts_nobody_chose_takes_part_with_zeros():
    moe = layer_of()
    with torch.no_grad():
        moe.router.proj.weight.zero_()
        moe.router.proj.weight[:2] = 9 * torch.ones(2, D)
    for rank, (y, gradients) in enumerate(launch(one_way_traffic_on_rank, 2)):
        torch.testing.assert_close(y, moe(tokens_of(rank).abs()).detach(), rtol=RTOL, atol=1e-14)
        assert bool(gradients["experts.up_proj"].any()) == (rank == 0)


def count_on_rank(spread, factor):
    moe = layer_of(factor)
    spread(moe)
    x = tokens_of(dist.get_rank()).requires_grad_()
    with count_communication() as communication:
        moe(x).sum().backward()
    return communication


@two_and_four
@pytest.mark.parametrize("factor", [None, 0.7])
def test_bytes_counted_equal_the_formula(world_size, factor):
    share, state = N_EXPERTS // world_size, layer_of().state_dict()
    rows = torch.zeros(world_size, world_size, dtype=torch.long)  # from rank, to rank
    for rank in range(world_size):
        x = tokens_of(rank)
        scores = x @ state["router.proj.weight"].T
        first, second = scores.argsort(-1, descending=True)[:, :2].T.tolist()
        queues = [0] * N_EXPERTS
        for expert in first + second:
            queues[expert] += 1
            rows[rank, expert // share] += queues[expert] <= capacity_of(factor, len(x))
    for rank, counted in enumerate(launch(count_on_rank, world_size, spread_experts, factor)):
        num_sent, num_received = int(rows[rank].sum()), int(rows[:, rank].sum())
        assert counted.calls == {"all_to_all": 5}
        assert counted.payload_bytes["all_to_all"] == 8 * N_EXPERTS + 2 * (num_sent + num_received) * D * 8


@two_and_four
def test_the_naive_version_sends_every_token_everywhere(world_size):
    n, k = 7, TOP_K
    for counted in launch(count_on_rank, world_size, spread_experts_naive, None):
        # tokens, gates, experts, places there; outputs back; and the gradients of tokens, gates, outputs
        gathered, scattered = 8 * world_size * n * (D + 3 * k), 8 * world_size * n * D
        assert counted.payload_bytes["all_gather"] == gathered + 8 * world_size * n * D
        assert counted.payload_bytes["reduce_scatter"] == scattered + 8 * world_size * n * (D + k)


def model_with_experts():
    torch.manual_seed(0)
    model = GPT(CONFIG).double()
    use_experts(model, N_EXPERTS, top_k=TOP_K)
    return model


def batches(steps=3):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(13, (4, 8), generator=generator) for _ in range(steps)]


def train(model, rows, loads, average):
    """SGD with the balancing loss, clipped; `loads` gives those that count, `average` acts on gradients."""
    norms, optimizer = [], torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for input_ids in batches():
        input_ids = input_ids[rows]
        with record_routing(model) as routings:
            logits = model(input_ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten())
        loss = loss + sum(0.1 * load_balancing_loss(routing, load=loads(routing)) for routing in routings)
        optimizer.zero_grad()
        loss.backward()
        average(model)
        norms.append(clip_gradients(model, 0.05).item())
        optimizer.step()
    return {name: local(parameter.detach()) for name, parameter in model.named_parameters()}, norms


def train_on_rank(dp=1):
    mesh = make_mesh(dp=dp, ep=dist.get_world_size() // dp)
    everyone, ep = merge_axes(mesh, "dp", "ep"), mesh["ep"]
    model = model_with_experts()
    spread_experts(model, ep)
    group, replicas = everyone.get_group(), mesh["dp"].get_group()
    average = functools.partial(average_gradients_with_experts, group=group, replicas=replicas)
    rows = slice(dist.get_rank(), None, dist.get_world_size())
    return ep.get_local_rank(), *train(model, rows, functools.partial(total_load, group=group), average)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "dp"), [(2, 1), (4, 1), (4, 2)])
def test_a_gpt_with_experts_trains_as_one_process_does(world_size, dp):
    alone, norms = train(model_with_experts(), slice(None), lambda routing: None, lambda model: None)
    router = "blocks.1.feed_forward.router.proj.weight"
    assert (alone[router] - model_with_experts().state_dict()[router]).norm() > 1e-3
    assert min(norms) > 0.05  # each step was clipped, by the norm of all experts
    for ep_rank, parameters, norms_of_rank in launch(train_on_rank, world_size, dp=dp):
        assert norms_of_rank == pytest.approx(norms, rel=RTOL)
        for name, parameter in parameters.items():
            whole = alone[name]
            share = whole.chunk(world_size // dp)[ep_rank] if ".experts." in name else whole
            torch.testing.assert_close(parameter, share, rtol=RTOL, atol=1e-13)


def save_on_rank(folder):
    model = model_with_experts()
    spread_experts(model)
    dcp.save(model.state_dict(), checkpoint_id=folder)


def load_on_rank(folder):
    model = model_with_experts()
    spread_experts(model)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    dcp.load(model.state_dict(), checkpoint_id=folder)
    return {name: local(value) for name, value in model.state_dict().items()}


@pytest.mark.slow
def test_experts_saved_by_two_ranks_load_on_four(tmp_path):
    launch(save_on_rank, 2, tmp_path)
    whole = model_with_experts().state_dict()
    for rank, state in enumerate(launch(load_on_rank, 4, tmp_path)):
        for name, value in state.items():
            share = whole[name].chunk(4)[rank] if ".experts." in name else whole[name]
            assert torch.equal(value, share)


def make_on_meta_device():
    with torch.device("meta"):
        model = GPT(CONFIG)
        use_experts(model, N_EXPERTS)
    spread_experts(model)
    model.to_empty(device="cpu")
    model.init_weights(torch.Generator().manual_seed(0))
    return {name: local(parameter.detach()) for name, parameter in model.named_parameters()}


def test_weights_drawn_after_spreading_are_those_of_one_process():
    whole = GPT(CONFIG)
    use_experts(whole, N_EXPERTS)
    whole.init_weights(torch.Generator().manual_seed(0))
    for rank, parameters in enumerate(launch(make_on_meta_device, 2)):
        for name, parameter in whole.named_parameters():
            share = parameter.chunk(2)[rank] if ".experts." in name else parameter
            assert torch.equal(parameters[name], share)


def average_in_wrong_groups():
    moe = layer_of()
    spread_experts(moe, make_mesh(dp=2, ep=2)["ep"])
    average_gradients_with_experts(moe)


def test_a_forgotten_replica_is_an_error_that_says_which_groups_fit():
    with pytest.raises(RankError, match="1 replicas of 2 ranks that share experts, together, got"):
        launch(average_in_wrong_groups, 4, echo=False)


def average_experts_as_if_they_were_copies(average):
    layer = layer_of()
    spread_experts(layer)
    average(layer)


@pytest.mark.parametrize("average", [average_gradients, average_gradients_bucketed])
def test_averaging_different_experts_is_an_error_that_names_the_right_call(average):
    with pytest.raises(RankError, match="for experts use average_gradients_with_experts"):
        launch(average_experts_as_if_they_were_copies, 2, average, echo=False)


def spread_over_several_axes():
    spread_experts(layer_of(), make_mesh(dp=1, ep=1)["dp", "ep"])


def test_a_mesh_of_several_axes_is_an_error():
    with pytest.raises(RankError, match=r'several axes: expected one axis, as mesh\["ep"\], got dp, ep'):
        launch(spread_over_several_axes, 1, echo=False)


def divide_three_experts():
    spread_experts(layer_of(n_experts=3))


def test_experts_that_do_not_divide_are_an_error_that_says_what_would():
    message = "a multiple of 2 experts, as 4 is, got 3; or spread them over 1 or 3 ranks"
    with pytest.raises(RankError, match=message):
        launch(divide_three_experts, 2, echo=False)


def spread_nothing():
    spread_experts(GPT(CONFIG))


def test_a_model_without_experts_is_an_error_that_says_how_to_get_them():
    with pytest.raises(RankError, match=r"no experts; put them in with coursekit\.models\.use_experts"):
        launch(spread_nothing, 1, echo=False)


def test_without_process_group_there_is_an_error_that_says_how_to_get_one():
    with pytest.raises(InputError, match=r"coursekit\.parallel\.launch"):
        spread_experts(copy.deepcopy(layer_of()))
