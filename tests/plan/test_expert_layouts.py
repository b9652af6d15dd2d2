"""Layouts of models with experts: against hand computation, and against published models and layouts."""

import pytest

from coursekit.cli.plan_models import model_by_name
from coursekit.errors import InputError
from coursekit.formulas.communication import expert_tensor_bytes
from coursekit.formulas.parameters import expert_layers_on_stage, layers_before_stage, layers_on_stage
from coursekit.models.presets import preset
from coursekit.plan.bytes_sent import communication
from coursekit.plan.cluster import Cluster
from coursekit.plan.data_sheets import Device
from coursekit.plan.layout import ExpertLayers, Layout
from coursekit.plan.layouts import rank_layouts
from coursekit.plan.memory_per_device import memory
from coursekit.plan.operations import flops_per_token
from coursekit.plan.parameter_count import parameters
from coursekit.plan.step_time import decisive_stages, step_seconds

MIXTRAL, MIXTRAL_EXPERTS = model_by_name("mixtral-8x7b")
DEEPSEEK, DEEPSEEK_EXPERTS = model_by_name("deepseek-v3")
# An H100 with slower links: "NVLink offers a bandwidth of 160 GB/s, roughly 3.2 times that of IB (50 GB/s)".
H800 = Device("H800", 989e12, 80 * 2**30, 3.35e12, 160e9, 700, "DeepSeek-AI 2024, section 3.2.2")
DEEPSEEK_RUN = {"global_batch_tokens": 15_360 * 4096, "seq_len": 4096, "recipe": "mixed_18"}


def mesh(each):
    layout = each.layout
    return layout.dp_size, layout.tp_size, layout.pp_size, layout.ep_size


def rank_mixtral(nodes=8, **options):
    asked = {"global_batch_tokens": 256 * 4096, "seq_len": 4096, "recipe": "mixed_18", **options}
    return rank_layouts(MIXTRAL, Cluster(nodes), experts=MIXTRAL_EXPERTS, **asked)


# Parameters in all and for a token, in 1e9: Jiang et al. 2024 (arXiv:2401.04088), section 2.1, 47 and 13;
# mistral.ai, "Cheaper, better, faster, stronger" (2024), 141 and 39; DeepSeek-AI 2024 (arXiv:2412.19437), 671
# and 37.
PUBLISHED = {"mixtral-8x7b": (47, 13), "mixtral-8x22b": (141, 39), "deepseek-v3": (671, 37)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_mixtures_have_their_published_sizes(name):
    shape, experts = model_by_name(name)
    parts = parameters(shape, experts=experts)
    active = parts.total - parts["experts"] * (1 - experts.top_k / experts.n_experts)
    assert round(parts.total / 1e9) == PUBLISHED[name][0]
    # DeepSeek's 37 leaves the embedding out, which is looked up.
    looked_up = parts["embeddings"] if name == "deepseek-v3" else 0
    assert round((active - looked_up) / 1e9) == PUBLISHED[name][1]


def test_deepseeks_feed_forward_layers_are_those_that_its_report_lists():
    # 61 layers, three of them dense of width 18,432; in each other one shared and 256 routed experts of 2048.
    parts = parameters(DEEPSEEK, experts=DEEPSEEK_EXPERTS)
    expert = 3 * 7168 * 2048
    assert parts["feed_forward"] == 3 * 3 * 7168 * 18_432 + 58 * expert
    assert parts["experts"] == 58 * 256 * expert
    assert parts["routers"] == 58 * 256 * 7168
    flops = flops_per_token(DEEPSEEK, experts=DEEPSEEK_EXPERTS)
    assert flops["experts"] == 6 * 58 * 8 * expert
    assert flops["feed_forward"] == 6 * parts["feed_forward"]


@pytest.mark.parametrize("pp_size", [1, 2, 5, 16, 32, 61])
def test_the_first_dense_layers_are_on_the_first_stages(pp_size):
    # The oracle lists the layers one by one.
    layers, layer = [], 0
    for stage in range(pp_size):
        mine = range(layer, layer + layers_on_stage(61, pp_size, stage))
        assert layers_before_stage(61, pp_size, stage) == layer
        layers.append(sum(number >= 3 for number in mine))
        layer = mine.stop
    assert [expert_layers_on_stage(61, pp_size, s, 256, 1, 3) for s in range(pp_size)] == layers
    assert sum(layers) == 58


@pytest.mark.parametrize("pp_size", [4, 16, 32, 61])
def test_the_stage_after_the_dense_layers_is_among_those_that_decide(pp_size):
    layout = Layout(pp_size=pp_size, ep_size=8, grad_accum_steps=2 * pp_size)
    options = {"seq_len": 4096, "experts": DEEPSEEK_EXPERTS}

    def largest(stages):
        return max(memory(DEEPSEEK, layout, stage=stage, **options).total for stage in stages)

    assert largest(decisive_stages(layout, DEEPSEEK_EXPERTS)) == largest(range(pp_size))
    # The control: without the knowledge of dense layers another stage is taken for the largest.
    assert pp_size < 61 or largest(decisive_stages(layout)) < largest(range(pp_size))


def test_a_ranks_experts_are_its_part_of_them_and_their_state_is_sharded_over_the_other_ranks():
    # By hand: Mixtral in Megatron-Core's layout on 64 ranks, of 8 layers a stage, one expert of each.
    layout = Layout(dp_size=2, pp_size=4, ep_size=8, zero_stage=1, grad_accum_steps=16)
    parts = memory(MIXTRAL, layout, seq_len=4096, recipe="mixed_18", experts=MIXTRAL_EXPERTS, stage=1)
    expert = 8 * 3 * 4096 * 14_336
    dense = 8 * (2 * 4096 * (4096 + 1024) + 8 * 4096 + 2 * 4096)  # attention, router, two norms
    assert parts["parameters"] == 2 * (expert + dense)
    assert parts["gradients"] == 4 * (expert + dense)
    assert parts["optimizer_states"] == 12 * (expert / 2 + dense / 16)


def test_the_all_to_alls_carry_each_token_once_for_each_of_its_experts_four_times_a_layer():
    # DeepSeek-V3's layout: 4 layers of stage 1, 120 sequences of 4096 tokens a rank and step.
    layout = Layout(dp_size=2, pp_size=16, ep_size=64, zero_stage=1, grad_accum_steps=120)
    options = {"seq_len": 4096, "recipe": "mixed_18", "experts": DEEPSEEK_EXPERTS, "stage": 1}
    rows = 4 * 120 * 4096 * 8
    sent = communication(DEEPSEEK, layout, **options)["expert"]
    assert sent == pytest.approx(4 * rows * 7168 * 2 * 63 / 64, rel=1e-12)
    step = step_seconds(DEEPSEEK, layout, Cluster(256, device=H800), **options)
    assert step["expert"] == pytest.approx(sent / 50e9, rel=1e-12)  # its own adapter: eight nodes


def test_sequence_parallel_ranks_send_their_own_tokens_and_gather_them_at_the_experts():
    plain = {"dp_size": 2, "ep_size": 4, "sequence_parallel": True}
    options = {"seq_len": 4096, "experts": MIXTRAL_EXPERTS}
    whole, divided = (
        communication(MIXTRAL, Layout(tp_size=tp, **plain), **options)["expert"] for tp in (1, 2)
    )
    assert divided == whole / 2
    # Beyond a dense layer: of two experts a token one row more, half of it to the other rank, gathered and
    # scattered in the forward pass, both again in the backward pass, and gathered once more for the weights.
    hidden = 4096 * 4096 * 2
    assert expert_tensor_bytes(hidden, 32, 2, 2, 4, "none") == 32 * (2 * 2 + 1) * hidden / 2
    assert expert_tensor_bytes(hidden, 32, 2, 2, 1, "none") == 0


def test_few_tokens_an_expert_wait_for_its_weights():
    # A sequence of 4096 tokens over 256 experts, 8 each: 128 rows an expert. Reading 2 bytes a weight twice,
    # and 4 of its gradient in and out, takes longer than 6 operations a row and weight at 60 % of the peak.
    weights = 4 * 256 * 3 * 7168 * 2048
    reading, computing = (2 * 2 + 2 * 4) * weights / 3.35e12, 6 * 128 * weights / (0.6 * 989e12)
    assert reading > computing
    layout = Layout(dp_size=32, pp_size=16, grad_accum_steps=120)
    options = {"seq_len": 4096, "recipe": "mixed_18", "experts": DEEPSEEK_EXPERTS, "stage": 1}
    step = step_seconds(DEEPSEEK, layout, Cluster(64, device=H800), **options)
    assert step["expert_weights"] == pytest.approx(120 * (reading - computing), rel=1e-12)
    # With the tokens of eight ranks together there is nothing to wait for.
    spread = Layout(dp_size=4, ep_size=8, pp_size=16, grad_accum_steps=120)
    assert step_seconds(DEEPSEEK, spread, Cluster(64, device=H800), **options)["expert_weights"] == 0


def test_every_number_of_parts_that_divides_the_experts_is_tried_and_no_other():
    ranked = rank_mixtral()
    assert len({mesh(each) for each in ranked}) == len(ranked)
    assert {each.layout.ep_size for each in ranked} == {1, 2, 4, 8}
    six = ExpertLayers(6, 2)
    ranked = rank_layouts(MIXTRAL, Cluster(3), experts=six, global_batch_tokens=96 * 4096, seq_len=4096)
    assert {each.layout.ep_size for each in ranked} == {1, 2, 3, 6}
    for each in ranked:
        assert each.layout.world_size == 24
        assert each.memory is None or each.layout.global_batch_size == 96


def test_what_is_said_of_a_layout_with_experts_is_what_memory_and_step_seconds_say():
    options = {"seq_len": 4096, "recipe": "mixed_18", "experts": MIXTRAL_EXPERTS}
    for each in rank_mixtral(1, global_batch_tokens=64 * 4096):
        assert each.memory.parts == memory(MIXTRAL, each.layout, **options).parts
        assert each.step.parts == step_seconds(MIXTRAL, each.layout, Cluster(), **options).parts
        assert each.fits == (each.bytes <= 0.9 * 80 * 2**30)


def test_a_loser_is_told_that_its_tokens_leave_the_node():
    ranked = rank_mixtral(fixed={"tp_size": 2})
    told = [each.why for each in ranked if each.layout.ep_size == 8 and each.fits]
    assert told
    assert all("sending tokens to experts, as ep=8 leaves the node" in why for why in told)


def test_a_model_without_experts_has_no_parts_of_them():
    options = {"global_batch_tokens": 2**20, "seq_len": 8192}
    assert {e.layout.ep_size for e in rank_layouts(preset("llama3-8b"), Cluster(), **options)} == {1}
    (refused, *_) = rank_layouts(preset("llama3-8b"), Cluster(), fixed={"ep_size": 2}, **options)
    assert refused.why.startswith("impossible: the model has no experts to divide")


def test_experts_that_cannot_be_are_refused():
    for wrong in ({"top_k": 9}, {"d_ff": 0}, {"n_shared": -1}, {"first_dense": -1}):
        with pytest.raises(InputError, match="wrong experts"):
            ExpertLayers(8, **wrong)
    with pytest.raises(InputError, match="the experts' d_ff"):
        memory(MIXTRAL, Layout(tp_size=8), seq_len=64, experts=ExpertLayers(8, d_ff=100))


# NVIDIA/Megatron-LM, megatron/core/transformer/moe/README.md, "Reference Best Parallel Mapping": H100 80GB
# with eight adapters of 400 Gb/s, 256 sequences of 4096 a step, micro-batches of one. Nodes, (tp, ep, pp).
MEGATRON = {"mixtral-8x7b": (8, (1, 8, 4)), "mixtral-8x22b": (16, (4, 2, 8))}


@pytest.mark.parametrize("name", MEGATRON)
def test_megatron_cores_best_mappings_fit_and_are_close_to_the_best_that_is_found(name):
    """Within an eighth, without Megatron's folding and with four stages a rank at most where it has 7 or 8.

    For both the ranking prefers ZeRO-3 without a pipeline, which that table, of a distributed optimizer that
    shards as ZeRO-1 does, leaves out. The page's rule "EP8TP1 is better than EP4TP2 for 8x7B" comes out.
    """
    nodes, (tp, ep, pp) = MEGATRON[name]
    shape, experts = model_by_name(name)
    options = {"global_batch_tokens": 256 * 4096, "seq_len": 4096, "recipe": "mixed_18"}
    ranked = rank_layouts(shape, Cluster(nodes), experts=experts, **options)
    by_mesh = {(e.layout.tp_size, e.layout.ep_size, e.layout.pp_size): e for e in ranked}
    published = by_mesh[tp, ep, pp]
    assert published.fits
    assert published.layout.micro_batch_size == 1
    assert (ranked[0].layout.zero_stage, ranked[0].layout.pp_size) == (3, 1)
    assert published.seconds < 1.125 * ranked[0].seconds
    without_zero_3 = [e for e in ranked if e.layout.zero_stage < 3 and e.layout.pp_size == pp]
    if name == "mixtral-8x7b":
        assert by_mesh[1, 8, 4].seconds < by_mesh[2, 4, 4].seconds
    assert published.seconds < 1.03 * min(e.seconds for e in without_zero_3)


def test_deepseek_v3s_mesh_is_possible_and_loses_by_what_its_report_hides():
    """16 stages, experts on 64 ranks of eight nodes, ZeRO-1, no tensor parallelism, on 2048 GPUs.

    Source: DeepSeek-AI 2024, section 3.2 (https://arxiv.org/abs/2412.19437); steps of 15,360 sequences of
    4096 from section 4.2. The planner lets all-to-alls wait and ranks smaller ep first. The report says why
    they need not: DualPipe hides them behind other micro-batches (3.2.1), a token goes to at most four nodes
    (3.2.2), and it is dispatched in 8 bits (3.3.3).
    """
    cluster = Cluster(256, device=H800)
    ranked = rank_layouts(DEEPSEEK, cluster, experts=DEEPSEEK_EXPERTS, **DEEPSEEK_RUN)
    published = next(each for each in ranked if mesh(each) == (2, 1, 16, 64))
    assert published.fits
    assert "sending tokens to experts, as ep=64 leaves the node" in published.why
    assert published.seconds > 1.5 * ranked[0].seconds
    assert 1 < ranked[0].layout.ep_size <= 8
    assert ranked[0].layout.tp_size == 1
    # Hidden, as there, the same mesh is among the quickest.
    hidden = published.step["expert"] * (1 + published.step["bubble"] / published.seconds)
    assert published.seconds - hidden < 1.15 * ranked[0].seconds


def test_deepseeks_one_to_one_of_computing_and_sending_comes_out_of_the_bytes():
    """Section 3.2.1: "an inefficient computation-to-communication ratio of approximately 1:1".

    By the planner's bytes eight rows of 16 bits cross nodes in each of four passes. In the report a row
    crosses once for each of at most four nodes (section 3.2.2), and dispatching takes 8 bits, forward and for
    the gradients; combining stays in 16 (section 3.3.3). Computing is in 8 bits as well, at twice the peak.
    """
    layout = Layout(dp_size=2, pp_size=16, ep_size=64, zero_stage=1, grad_accum_steps=120)
    options = {"seq_len": 4096, "recipe": "mixed_18", "experts": DEEPSEEK_EXPERTS, "stage": 1}
    step = step_seconds(DEEPSEEK, layout, Cluster(256, device=H800), **options)
    planned, theirs = 4 * 8 * 2, 2 * 4 * 1 + 2 * 4 * 2
    # Causal attention needs half of the scores that the convention counts.
    flops = flops_per_token(DEEPSEEK, seq_len=4096, experts=DEEPSEEK_EXPERTS)
    computing = step["compute"] / 2 * (1 - flops["attention_scores"] / 2 / (flops.total - flops["head"]))
    assert step["expert"] * theirs / planned / computing == pytest.approx(1, rel=0.02)
    assert step["expert"] / computing > 2.5  # the control: what the savings save
