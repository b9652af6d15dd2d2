"""Parameters and bytes of state against models that were built, whole and in parts on real ranks."""

import pytest
import torch

from coursekit import plan
from coursekit.formulas.parameters import layers_on_stage, parameters_on_rank
from coursekit.models import GPT, PRESETS, GPTConfig, preset, use_experts
from coursekit.parallel import (
    launch,
    make_mesh,
    measure_state_bytes,
    shard_model,
    split_into_stages,
    tensor_parallelize,
)
from coursekit.plan.calling import call
from coursekit.plan.layout import scalars

SHAPES = [
    GPTConfig(32, 8, d_model=16, n_layers=4, n_heads=4),
    GPTConfig(32, 8, d_model=16, n_layers=4, n_heads=4, tie_embeddings=False, position="rope"),
    GPTConfig(32, 8, d_model=16, n_layers=4, n_heads=4, n_kv_heads=2, d_ff=24, norm="rmsnorm", bias=False),
    GPTConfig(32, 8, d_model=16, n_layers=4, n_heads=4, activation="swiglu", d_ff=24, norm="rmsnorm"),
]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def on_rank(shape, layout, stage=0, experts=None):
    return sum(call(parameters_on_rank, scalars(shape, layout, experts), stage=stage).values())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_has_as_many_parameters_as_is_said(shape):
    assert plan.parameters(shape).total == count(GPT(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("every", [1, 2])
def test_a_mixture_of_experts_has_as_many_parameters_as_is_said(shape, every):
    model = GPT(shape)
    use_experts(model, 4, every=every)
    assert plan.parameters(shape, experts=plan.ExpertLayers(4, every=every)).total == count(model)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.tie_embeddings])
def test_a_stage_has_as_many_parameters_as_is_said(shape):
    stages = split_into_stages(GPT(shape), 4)
    assert [on_rank(shape, plan.Layout(pp_size=4), stage) for stage in range(4)] == list(map(count, stages))


def test_llama_405b_has_its_layers_on_sixteen_stages_as_its_paper_says():
    assert [layers_on_stage(126, 16, stage) for stage in range(16)] == [7, *[8] * 14, 7]


@pytest.mark.parametrize(("n_layers", "pp_size"), [(7, 3), (10, 4), (11, 4), (4, 4), (5, 1)])
def test_the_stages_have_all_layers_and_differ_by_one(n_layers, pp_size):
    sizes = [layers_on_stage(n_layers, pp_size, stage) for stage in range(pp_size)]
    assert sum(sizes) == n_layers
    assert max(sizes) - min(sizes) <= 1


def local_state(shape, layout):
    torch.manual_seed(0)
    model = GPT(shape)
    if layout.tp_size > 1:
        tensor_parallelize(model, make_mesh(tp=layout.tp_size, dp=1)["tp"])
    else:
        shard_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    optimizer.step()
    return measure_state_bytes(model, optimizer)


@pytest.mark.parametrize("layout", [plan.Layout(tp_size=2), plan.Layout(dp_size=2, zero_stage=3)])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_a_rank_holds_the_bytes_of_state_that_are_predicted(shape, layout):
    parts = plan.memory(shape, layout, seq_len=8, recipe="fp32_16")
    for state in launch(local_state, 2, shape, layout):
        assert state.parameters == parts["parameters"]
        assert state.gradients == parts["gradients"]
        assert state.optimizer == parts["optimizer_states"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_zero_stage_divides_one_part_more(stage):
    whole, sharded = (
        plan.memory(preset("llama3-8b"), plan.Layout(dp_size=n, zero_stage=stage), seq_len=128)
        for n in (1, 64)
    )
    kinds = ["optimizer_states", "gradients", "parameters"]
    assert [kind for kind in kinds if sharded[kind] < whole[kind]] == kinds[:stage]


def test_experts_are_divided_over_their_own_axis_and_their_state_over_the_other():
    shape, experts = preset("llama2-7b"), plan.ExpertLayers(8)
    one, ep, ep_dp = (
        plan.memory(shape, layout, seq_len=128, experts=experts)["optimizer_states"]
        for layout in (
            plan.Layout(),
            plan.Layout(ep_size=8, zero_stage=0),
            plan.Layout(ep_size=8, dp_size=2, zero_stage=1),
        )
    )
    parts = plan.parameters(shape, experts=experts)
    dense, sparse = parts.total - parts["experts"], parts["experts"]
    assert (one, ep) == (12 * parts.total, 12 * (dense + sparse / 8))
    assert ep_dp == 12 * (dense / 16 + sparse / 8 / 2)


@pytest.mark.parametrize("name", plan.RECIPES)
def test_a_recipes_copies_add_up_to_the_number_in_its_name(name):
    chosen = plan.recipe(name)
    if name != "bf16_only":
        assert chosen.bytes_per_param == int(name.rpartition("_")[2])
    parts = plan.memory(preset("gpt2"), seq_len=8, recipe=name)
    state = parts["parameters"] + parts["gradients"] + parts["optimizer_states"]
    assert state == chosen.bytes_per_param * plan.parameters(preset("gpt2")).total


def test_the_worst_stage_of_a_pipeline_is_the_answer():
    layout = plan.Layout(pp_size=4, grad_accum_steps=8)
    shape = preset("llama3-8b")
    totals = [plan.memory(shape, layout, seq_len=4096, stage=stage).total for stage in range(4)]
    assert plan.memory(shape, layout, seq_len=4096).total == max(totals) > min(totals)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_divides_over_eight_ranks_but_those_that_cannot(name):
    shape = preset(name)
    if shape.n_heads % 8:
        with pytest.raises(ValueError, match="does not divide"):
            plan.memory(shape, plan.Layout(tp_size=8), seq_len=128)
    else:
        assert plan.memory(shape, plan.Layout(tp_size=8), seq_len=128).total > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dp_size": 0}, "wrong dp_size"),
        ({"zero_stage": 4}, "no such stage of ZeRO"),
        ({"schedule": "dualpipe"}, "unknown schedule"),
        ({"stages_per_rank": 2}, "several stages a rank"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan.Layout(**options)


def test_unknown_recipes_and_parts_are_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="expected fp32_16, mixed_16"):
        plan.recipe("fp8")
    with pytest.raises(ValueError, match="expected embeddings, attention"):
        plan.parameters(preset("gpt2"))["experts"]
