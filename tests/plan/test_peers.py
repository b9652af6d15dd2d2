"""Other people's calculators: formulas and printed answers beside the planner's, each difference explained.

Read in November 2026. The formulas are written anew here, from what the files compute; nothing is copied.
"""

import dataclasses

import pytest

from coursekit import plan
from coursekit.cli.plan_models import model_by_name
from coursekit.formulas.state import gathered_bytes, state_bytes
from coursekit.models import GPTConfig, preset
from coursekit.units import GiB, MiB

STATE = ("parameters", "gradients", "optimizer_states")


def state(shape, layout, **options):
    """Return the planner's bytes of parameters, gradients and optimizer states of the fullest stage."""
    stages = [plan.memory(shape, layout, stage=s, **options) for s in range(layout.pp_size)]
    return max(sum(each[name] for name in STATE) for each in stages)


# --- NVIDIA/Megatron-LM, megatron/training/theoretical_memory_usage.py


def megatron_parameters(shape, experts=None):
    """Return (parameters of all layers and the final norm, of one embedding), as the file counts them."""
    d, norm = shape.d_model, 1 if shape.norm == "rmsnorm" else 2
    gated = 3 / 2 if shape.activation == "swiglu" else 1
    attention = 2 * d * d * (1 + shape.n_kv_heads / shape.n_heads)
    if rank := getattr(shape, "kv_rank", 0):
        width = shape.n_heads * (shape.nope_dim + shape.rope_dim)
        attention = shape.q_rank * (d + width + 1) + shape.n_heads * shape.v_dim * d
        attention += rank * (d + shape.n_heads * (shape.nope_dim + shape.v_dim) + 1) + d * shape.rope_dim
    dense = 2 * d * (shape.d_ff * gated + norm) + attention
    layers = shape.n_layers * dense
    if experts is not None:
        width = experts.d_ff or shape.d_ff
        inner = width * gated * (experts.n_experts + experts.n_shared)
        sparse = 2 * d * (inner + norm) + attention
        layers = experts.first_dense * dense + (shape.n_layers - experts.first_dense) * sparse
    return layers + norm * d, shape.vocab_size * d


def megatron_state(shape, *, tp, pp, dp, distributed_optimizer, experts=None):
    """Return the bytes of weights and optimizer on the rank that has most."""
    block, embedding = megatron_parameters(shape, experts)
    ends = embedding if pp > 1 or shape.tie_embeddings else 2 * embedding
    return (block / pp + ends) / tp * (6 + 12 / dp if distributed_optimizer else 18)


@pytest.mark.parametrize("tp", [1, 4, 8])
@pytest.mark.parametrize("pp", [1, 4, 8, 16])
@pytest.mark.parametrize("sharded", [False, True])
def test_megatrons_bytes_of_state(tp, pp, sharded):
    """Llama 3 70B, whose 80 layers divide. What differs are norms, which every tp rank has whole."""
    shape, dp = preset("llama3-70b"), 4
    theirs = megatron_state(shape, tp=tp, pp=pp, dp=dp, distributed_optimizer=sharded)
    layout = plan.Layout(dp_size=dp, tp_size=tp, pp_size=pp, zero_stage=int(sharded), grad_accum_steps=pp)
    ours = state(shape, layout, seq_len=8192, recipe="mixed_18")
    assert ours == pytest.approx(theirs, rel=2e-4)


def test_the_control_another_count_of_copies_is_noticed():
    shape = preset("llama3-70b")
    theirs = megatron_state(shape, tp=8, pp=1, dp=1, distributed_optimizer=False)
    ours = state(shape, plan.Layout(tp_size=8), seq_len=8192, recipe="mixed_16")
    assert ours == pytest.approx(theirs * 16 / 18, rel=2e-4)


def test_megatron_divides_layers_that_do_not_divide():
    """126 layers on 16 stages are 7.875 there. In Llama's paper, as here, the first stage has 7, others 8."""
    shape = preset("llama3-405b")
    layout = plan.Layout(tp_size=8, pp_size=16, grad_accum_steps=16)
    theirs = megatron_state(shape, tp=8, pp=16, dp=1, distributed_optimizer=False)
    block, embedding = megatron_parameters(shape)
    fullest = max(block / 126 * 7 + embedding, block / 126 * 8) / 8 * 18
    ours = state(shape, layout, seq_len=8192, recipe="mixed_18")
    assert ours == pytest.approx(fullest, rel=2e-4)
    assert 1.05 < theirs / ours < 1.07


def test_megatron_leaves_biases_out():
    """GPT-3 has one for each output of its linear layers, 9 d beside 12 d² weights, and learned positions."""
    shape = preset("gpt3-175b")
    block, embedding = megatron_parameters(shape)
    positions = 2048 * 12_288
    biases = 96 * 9 * 12_288
    assert plan.parameters(shape).total == block + embedding + positions + biases


@pytest.mark.parametrize("name", ["mixtral-8x7b", "mixtral-8x22b", "deepseek-v3"])
def test_megatrons_parameters_of_mixtures(name):
    """The same, but for the routers, which that file leaves out: E d a layer with experts."""
    shape, experts = model_by_name(name)
    block, embedding = megatron_parameters(shape, experts)
    routers = (shape.n_layers - experts.first_dense) * experts.n_experts * shape.d_model
    assert plan.parameters(shape, experts=experts).total == block + 2 * embedding + routers


def test_megatrons_latent_attention_is_planned():
    """q 7168 → 1536 → 128 · 192, k and v 7168 → 512 → 128 · 256 beside 64 of rope, o 128 · 128 → 7168.

    That file counts the norms of the latents here as well, and the planner with the other norms.
    """
    query = 1536 * (7168 + 128 * (128 + 64) + 1)
    key_value = 512 * (7168 + 128 * (128 + 128) + 1) + 7168 * 64
    latent = query + key_value + 128 * 128 * 7168
    shape, experts = model_by_name("deepseek-v3")
    parts = plan.parameters(shape, experts=experts)
    assert parts["attention"] + 61 * (1536 + 512) == 61 * latent


def test_megatron_does_not_divide_experts_over_expert_parallel_ranks():
    """Its number for Mixtral on pp 4 is that of ep 1: with ep 8 a rank needs a sixth of it."""
    shape, experts = model_by_name("mixtral-8x7b")
    theirs = megatron_state(shape, tp=1, pp=4, dp=1, distributed_optimizer=False, experts=experts)
    options = {"seq_len": 4096, "recipe": "mixed_18", "experts": experts}
    one, eight = (
        state(shape, plan.Layout(pp_size=4, ep_size=ep, grad_accum_steps=4), **options) for ep in (1, 8)
    )
    assert one == pytest.approx(theirs, rel=2e-4)
    assert one / eight == pytest.approx(6.3, abs=0.1)


def megatron_activations(shape, *, seq_len, sequences, tp, pp):
    """Return the bytes with sequence parallelism and selective recomputation on the first stage."""
    tokens, d = seq_len * sequences, shape.d_model
    answer = tokens * d * (18 + 4 * shape.d_ff / d) * shape.n_layers + (8 * tokens + tokens * d) * pp
    if pp == 1:
        answer += 4 * tokens * d * (1 + shape.vocab_size / d)
    return answer / tp


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (8, 1), (8, 8)])
def test_megatrons_bytes_of_activations(tp, pp):
    """GPT-3 with dropout. There statistics are left out, and token ids are divided by tp."""
    shape = dataclasses.replace(preset("gpt3-175b"), dropout=0.1)
    layout = plan.Layout(
        tp_size=tp, pp_size=pp, sequence_parallel=tp > 1, micro_batch_size=2, grad_accum_steps=2 * pp
    )
    ours = plan.memory(shape, layout, seq_len=2048, stage=0)
    theirs = megatron_activations(shape, seq_len=2048, sequences=2, tp=tp, pp=pp)
    assert ours["activations"] + ours["logits"] == pytest.approx(theirs, rel=0.003)


def test_megatrons_activations_of_llama_are_those_of_gelu_and_dropout():
    """18 + 4 d_ff / d bytes a number for every model there.

    Llama has no masks (- 2), a quarter of the keys and values (- 3), its rotated queries give attention's
    output twice (+ 2), and SwiGLU keeps four tensors of width d_ff where gelu keeps two (+ 4 d_ff / d).
    """
    shape = preset("llama3-8b")
    more, fewer = (plan.activations(dataclasses.replace(shape, n_layers=n), seq_len=8192) for n in (2, 1))
    ours = more.total - fewer.total - more["statistics"] + fewer["statistics"]
    theirs = 18 + 4 * 14_336 / 4096
    assert ours / (8192 * 4096) == pytest.approx(theirs - 2 - 3 + 2 + 4 * 14_336 / 4096, rel=1e-12)


# --- deepspeedai/DeepSpeed, docs/code-docs/source/memory.rst, printed answers


def sharded_state(num_params, zero_stage, num_ranks, *, gradient_bytes=4):
    return sum(state_bytes(num_params, 2, gradient_bytes, 12, zero_stage, num_ranks).values())


def test_deepspeeds_printed_zero_3_of_t5():
    """18 bytes over all ranks, and the largest layer gathered, its parameters and 16-bit gradients whole.

    Printed: "6.09GB" for 2851M on 8 GPUs, largest layer 32M; "3291MB" for 737.67M on 4, largest 32.90M.
    """
    for num_params, largest, ranks, printed in (
        (2851e6, 32e6, 8, 6.09 * GiB),
        (737.67e6, 32.90e6, 4, 3291 * MiB),
    ):
        gathered = gathered_bytes(largest, 0, 1, 2, 2, 3, ranks)
        assert sharded_state(num_params, 3, ranks) + gathered == pytest.approx(printed, rel=1e-3)
    # As a layer among others, here the next one is gathered ahead of its use: 2 bytes a parameter more.
    assert gathered_bytes(0, 32e6, 1, 2, 2, 3, 8) == (4 + 2) * 32e6


def test_deepspeeds_printed_zero_2_of_t5_has_two_bytes_more_of_whole_gradients():
    """Printed: "15.93GB" for 2851M on 8 GPUs, by 4 N + 16 N / 8.

    Of its 4 bytes 2 are the parameters; the other 2 are 16-bit gradients before they are reduced. The planner
    frees a layer's as soon as it is reduced, which is what stage 2 is for.
    """
    ours = sharded_state(2851e6, 2, 8)
    assert ours + 2 * 2851e6 == pytest.approx(15.93 * GiB, rel=1e-3)


# --- EleutherAI/cookbook, calc/calc_transformer_flops.py and calc_transformer_mem.py


def cookbook_flops(*, layers, width, seq_len, vocab, factor):
    """Return the operations a token; `factor` is 3, or 4 with checkpointing."""
    in_layers = 2 * 3 * width**2 + 4 * seq_len * width + 2 * width**2 + 16 * width**2
    return factor * layers * in_layers + 6 * width * vocab


@pytest.mark.parametrize(("checkpointing", "factor"), [("none", 3), ("full", 4)])
def test_the_cookbooks_operations_of_gpt3(checkpointing, factor):
    """Its example "GPT-3 175B", `-l 96 -hs 12288`, with its defaults: 2048 tokens, a vocabulary of 51,200."""
    shape = dataclasses.replace(preset("gpt3-175b"), vocab_size=51_200)
    ours = plan.flops_per_token(shape, seq_len=2048, checkpointing=checkpointing).total
    theirs = cookbook_flops(layers=96, width=12_288, seq_len=2048, vocab=51_200, factor=factor)
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_cookbook_counts_a_dense_layer_beside_the_experts():
    """There k experts are added to the feed-forward layer that they replace: k + 1 in the place of k."""
    shape = dataclasses.replace(preset("gpt3-175b"), n_layers=12)
    experts = plan.ExpertLayers(512, top_k=2)
    ours = plan.flops_per_token(shape, seq_len=2048, experts=experts)["experts"]
    feed_forward = 3 * 16 * 12 * 12_288**2
    assert ours == 2 * feed_forward
    assert feed_forward + feed_forward * 2 == pytest.approx(1.5 * ours)


def test_the_cookbooks_state_is_divided_by_all_ranks_or_by_none():
    """Pythia 6.9B, its example: tp 2 on 128 GPUs, ZeRO-1.

    Parameters are divided by tp and optimizer states by all 128, as here. Its gradients are those of the
    whole model even where tp divides them: twice too many. Its norms have 8 d a layer for 13 d of norms and
    biases, of 12 d² in all.
    """
    shape = GPTConfig(51_200, 2048, d_model=4096, n_layers=32, n_heads=32, tie_embeddings=False)
    whole = 2 * 51_200 * 4096 + 2048 * 4096 + (8 * 32 + 2) * 4096 + 32 * 12 * 4096**2
    layout = plan.Layout(dp_size=64, tp_size=2, zero_stage=1)
    ours = plan.memory(shape, layout, seq_len=2048, recipe="mixed_18")
    assert ours["parameters"] == pytest.approx(2 * whole / 2, rel=2e-3)
    assert ours["optimizer_states"] == pytest.approx(12 * whole / 128, rel=2e-3)
    assert 2 * ours["gradients"] == pytest.approx(4 * whole, rel=2e-3)


# --- huggingface/accelerate, `accelerate estimate-memory`, answers posted on the Hub


def test_accelerates_rule_of_four_is_float32_with_adam():
    """facebook/incoder-1B, discussion 3: float32 "4.9 GB" as it is, "19.61 GB" to train it with Adam."""
    recipe = plan.recipe("fp32_16")
    assert 4.9 * recipe.bytes_per_param / recipe.param_bytes == pytest.approx(19.61, rel=2e-3)
    # The same answer halves both for float16, 9.81 GB: Adam without master weights, all in 16 bits.
    assert plan.recipe("bf16_only").bytes_per_param / recipe.bytes_per_param == 0.5


def test_accelerates_later_answer_for_16_bits_is_autocast_with_the_copies_beside_the_gradients():
    """timm/vit_large_patch16_384, discussion 1, in bytes: model, optimizer and gradients as below.

    The cast copy of a parameter, 2 bytes, stands with the gradients there and with the parameters here.
    What is reported as the need is the largest of these alone; a step has them all at once.
    """
    model, optimizer, gradients = 1_218_863_008, 2_437_726_016, 1_828_294_512
    num_params = model / 4
    parts = state_bytes(num_params, *(getattr(plan.recipe("autocast_18"), name) for name in COPIES), 0, 1)
    assert parts["optimizer"] == optimizer
    assert parts["parameters"] + parts["gradients"] == model + gradients
    assert sum(parts.values()) == 18 * num_params > 2 * max(model, optimizer, gradients)


COPIES = ("param_bytes", "gradient_bytes", "optimizer_bytes")
