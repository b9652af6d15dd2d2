"""Bytes of activations against the paper's table, and against what real steps save and hold."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from coursekit import plan
from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, naive_attention, preset, use_experts
from coursekit.train import checkpoint_layers, measure_live_tensors, measure_saved_tensors

B, T = 4, 64
SHAPE = {"vocab_size": 512, "max_seq_len": T, "d_model": 64, "n_layers": 4, "n_heads": 4}
GPT2 = GPTConfig(**SHAPE)
LLAMA = GPTConfig(
    **SHAPE,
    n_kv_heads=2,
    norm="rmsnorm",
    activation="swiglu",
    position="rope",
    bias=False,
    tie_embeddings=False,
)
LOSS_COUNT = 4  # cross_entropy keeps the number of labels, one float32


def one_layer(shape, layout, **options):
    """Return the bytes that a layer more costs, without the statistics that the papers leave out."""
    more, fewer = (
        plan.activations(dataclasses.replace(shape, n_layers=n * layout.pp_size), layout, **options)
        for n in (2, 1)
    )
    return more.total - fewer.total - more["statistics"] + fewer["statistics"]


S, H, HEADS = 2048, 12288, 96
TABLE_2 = {  # Korthikanti et al. 2022, bytes a layer over s b h, with a s / h = 16 and t = 8
    "no parallelism": (plan.Layout(), 34 + 5 * 16),
    "tensor parallel": (plan.Layout(tp_size=8), 10 + 24 / 8 + 5 * 16 / 8),
    "tensor and sequence parallel": (plan.Layout(tp_size=8, sequence_parallel=True), (34 + 5 * 16) / 8),
    "selective": (plan.Layout(tp_size=8, checkpointing="selective"), 10 + 24 / 8),
    "sequence parallel, selective": (
        plan.Layout(tp_size=8, sequence_parallel=True, checkpointing="selective"),
        34 / 8,
    ),
    "full": (plan.Layout(tp_size=8, checkpointing="full"), 2),
}


@pytest.mark.parametrize("row", TABLE_2)
def test_a_layer_is_the_papers_table(row):
    layout, bytes_over_sbh = TABLE_2[row]
    shape = dataclasses.replace(preset("gpt3-175b"), dropout=0.1)
    layout = dataclasses.replace(layout, attention="materialized", micro_batch_size=3)
    assert HEADS * S / H == 16
    got = one_layer(shape, layout, seq_len=S) if row != "full" else full_layer(shape, layout)
    assert got == pytest.approx(bytes_over_sbh * S * 3 * H, rel=1e-12)


def full_layer(shape, layout):
    return plan.activations(shape, layout, seq_len=S)["layer_inputs"] / shape.n_layers


@pytest.mark.parametrize(("schedule", "stages", "expected"), [("1f1b", 1, 4), ("interleaved", 2, 4 + 3 / 2)])
def test_the_first_stage_stores_what_the_paper_says(schedule, stages, expected):
    # Section 4.2.3: L layers' activations with 1F1B, L (1 + (p - 1) / (p m)) with m interleaved stages.
    layout = plan.Layout(pp_size=4, grad_accum_steps=32, schedule=schedule, stages_per_rank=stages)
    alone = plan.activations(preset("llama3-8b"), seq_len=S)["feed_forward_inner"] / 4
    got = plan.activations(preset("llama3-8b"), layout, seq_len=S)["feed_forward_inner"]
    assert got / alone == pytest.approx(expected)


def run_step(model, autocast=False):
    generator = torch.Generator().manual_seed(0)
    ids, labels = torch.randint(SHAPE["vocab_size"], (2, B, T), generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(ids)
    loss = cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
    del logits
    loss.backward()


def saved_bytes(model, **options):
    with measure_saved_tensors(exclude=model.parameters()) as saved:
        run_step(model, **options)
    return saved.peak_bytes


def predicted_bytes(shape, *, recipe="fp32_16", **layout):
    layout = plan.Layout(micro_batch_size=B, **layout)
    parts = plan.activations(shape, layout, seq_len=T, recipe=recipe)
    return parts.total + plan.memory(shape, layout, seq_len=T, recipe=recipe)["logits"] + LOSS_COUNT


def test_autograd_saves_what_is_predicted_to_the_byte():
    assert saved_bytes(GPT(GPT2)) == predicted_bytes(GPT2)


def test_bfloat16_halves_all_but_what_stays_in_32_bits():
    # On the CPU a layer norm in bfloat16 keeps its two statistics in bfloat16 as well: 2 bytes less each.
    on_cpu = (2 * GPT2.n_layers + 1) * 2 * 2 * B * T
    assert saved_bytes(GPT(GPT2).bfloat16()) == predicted_bytes(GPT2, recipe="bf16_only") - on_cpu


def test_autocast_keeps_a_cast_copy_of_every_matrix_which_the_recipe_counts_as_parameters():
    model = GPT(GPT2)
    casts = sum(2 * p.numel() for p in model.parameters() if p.dim() == 2)
    casts -= 2 * model.position_embedding.weight.numel()  # looked up, not multiplied
    assert saved_bytes(model, autocast=True) == predicted_bytes(GPT2, recipe="autocast_18") + casts


def test_autocast_casts_the_input_of_each_projection_anew():
    half, auto = (plan.activations(GPT2, seq_len=T, recipe=name) for name in ("mixed_16", "autocast_18"))
    assert auto["linear_inputs"] == 2 * half["linear_inputs"]


@pytest.mark.parametrize("recipe", ["fp32_16", "bf16_only"])
def test_rotary_swiglu_and_shared_heads_but_for_the_cpus_norm(recipe):
    model = GPT(LLAMA) if recipe == "fp32_16" else GPT(LLAMA).bfloat16()
    # torch's RMS norm is not fused on the CPU: in the place of its input it keeps two float32 tensors.
    width = plan.recipe(recipe).residual_bytes
    on_cpu = (2 * LLAMA.n_layers + 1) * B * T * LLAMA.d_model * (2 * 4 - width)
    assert saved_bytes(model) == predicted_bytes(LLAMA, recipe=recipe) + on_cpu


def test_scores_are_kept_where_the_kernel_materializes_them():
    model = GPT(GPT2)
    for block in model.blocks:
        block.attention.attend = lambda q, k, v, dropout_p: naive_attention(q, k, v)
    masks = GPT2.n_layers * T * T  # a boolean mask a layer
    assert saved_bytes(model) == predicted_bytes(GPT2, attention="materialized") + masks


@pytest.mark.parametrize(("n_experts", "top_k"), [(2, 2), (4, 4)])
def test_experts_that_get_equally_many_tokens_keep_a_tenth_more_than_predicted_at_most(n_experts, top_k):
    model = GPT(GPT2)
    use_experts(model, n_experts, top_k=top_k)  # k = E: every expert gets every token
    layout, experts = plan.Layout(micro_batch_size=B), plan.ExpertLayers(n_experts, top_k)
    options = {"seq_len": T, "recipe": "fp32_16", "experts": experts}
    predicted = plan.activations(GPT2, layout, **options).total
    predicted += plan.memory(GPT2, layout, **options)["logits"] + LOSS_COUNT
    assert predicted < saved_bytes(model) < 1.1 * predicted  # gates and places in queues are not counted


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("vocab_size", [512, 4096])
def test_what_lives_at_the_worst_moment_of_a_step_is_predicted(checkpointing, vocab_size):
    shape = dataclasses.replace(GPT2, vocab_size=vocab_size)
    model = GPT(shape)
    if checkpointing == "full":
        checkpoint_layers(model.blocks)
    run_step(model)  # from now on there are gradients, which live before the block
    with measure_live_tensors() as live:
        run_step(model)
    layout = plan.Layout(micro_batch_size=B, checkpointing=checkpointing)
    parts = plan.memory(shape, layout, seq_len=T, recipe="fp32_16")
    assert live.peak_bytes == pytest.approx(total_but_state(parts), rel=0.005)


@pytest.mark.parametrize("tied", [True, False])
def test_with_few_tokens_and_many_words_the_heads_own_gradient_decides(tied):
    shape = dataclasses.replace(GPT2, vocab_size=8192, d_model=128, d_ff=512, tie_embeddings=tied)
    model = GPT(shape)
    ids = torch.zeros(1, 32, dtype=torch.long)
    for _ in range(2):  # the second time there are gradients
        with measure_live_tensors() as live:
            cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    parts = plan.memory(shape, seq_len=32, recipe="fp32_16")
    assert live.peak_bytes == pytest.approx(total_but_state(parts), rel=0.02)
    assert parts["buffers"] >= 4 * 8192 * 128 > 2 * parts["logits"]


def total_but_state(parts):
    return parts["activations"] + parts["logits"] + parts["buffers"]


def test_a_formula_without_the_logits_would_be_noticed():
    parts = plan.memory(GPT2, plan.Layout(micro_batch_size=B), seq_len=T, recipe="fp32_16")
    assert parts["logits"] + parts["buffers"] > 0.1 * parts["activations"]


def test_parts_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="n_kv_heads does not divide"):
        plan.activations(LLAMA, plan.Layout(tp_size=4), seq_len=T)
    with pytest.raises(InputError, match="seq_len does not divide"):
        plan.activations(LLAMA, plan.Layout(cp_size=3), seq_len=T)
