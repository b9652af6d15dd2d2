"""Latent attention: against published counts, and against a layer that is written here and measured."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from coursekit import plan
from coursekit.cli.plan_models import model_by_file, model_by_name
from coursekit.errors import InputError
from coursekit.models import GPT, LatentConfig, num_params, preset
from coursekit.models.config_file import LLAMA
from coursekit.train import measure_saved_tensors

DEEPSEEK, EXPERTS = model_by_name("deepseek-v3")

# Fields of the files config.json of deepseek-ai's repositories on Hugging Face.
COMMON = {"max_position_embeddings": 4096, "moe_layer_freq": 1, "kv_lora_rank": 512, "v_head_dim": 128}
COMMON |= {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "tie_word_embeddings": False}
V2 = {"model_type": "deepseek_v2", "hidden_size": 5120, "num_hidden_layers": 60, "vocab_size": 102_400}
V2 |= {"num_attention_heads": 128, "intermediate_size": 12_288, "moe_intermediate_size": 1536}
V2 |= {"n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1}
V2 |= {"q_lora_rank": 1536}
LITE = {"hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 10_944}
LITE |= {"moe_intermediate_size": 1408, "n_routed_experts": 64, "q_lora_rank": None}
V3 = {"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "vocab_size": 129_280}
V3 |= {"num_attention_heads": 128, "intermediate_size": 18_432, "moe_intermediate_size": 2048}
V3 |= {"n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3}
# What Hugging Face counts in these repositories' weights. V3's have an offset for each expert, which no
# gradient trains (58 layers of 256), beside the weights; the layer that predicts a second token is left out.
COUNTED = {
    "DeepSeek-V2": (V2, 235_741_434_880),
    "DeepSeek-V2-Lite": (V2 | LITE, 15_706_484_224),
    "DeepSeek-V3": (V3 | {"q_lora_rank": 1536}, 671_026_419_200 - 58 * 256),
}


@pytest.mark.parametrize("name", COUNTED)
def test_published_models_have_exactly_the_parameters_that_are_counted_in_their_weights(name, tmp_path):
    fields, counted = COUNTED[name]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(COMMON | fields))
    shape, experts = model_by_file(file)
    assert plan.parameters(shape, experts=experts).total == counted
    if name == "DeepSeek-V3":
        assert (shape, experts) == (DEEPSEEK, EXPERTS)


def test_the_control_full_heads_are_another_number():
    full = plan.parameters(dataclasses.replace(preset("llama2-7b"), n_layers=1))["attention"]
    numbers = dataclasses.asdict(dataclasses.replace(preset("llama2-7b"), n_layers=1))
    latent = LatentConfig(**numbers, kv_rank=512, nope_dim=64, rope_dim=64, v_dim=128)
    assert plan.parameters(latent)["attention"] != full


# Kilobytes of a token in 16 bits: Zhao et al. 2025, Insights into DeepSeek-V3 (https://arxiv.org/abs/2505.09343),
# table 1. Qwen-2.5 72B has 80 layers and 8 key-value heads of 128.
CACHED = {
    "DeepSeek-V3": (DEEPSEEK, 70.272),
    "Qwen-2.5 72B": (dataclasses.replace(preset("llama3-70b"), d_ff=29_568, vocab_size=152_064), 327.680),
    "LLaMA-3.1 405B": (preset("llama3-405b"), 516.096),
}


@pytest.mark.parametrize("name", CACHED)
def test_the_key_value_cache_of_a_token_has_the_published_bytes(name):
    shape, kilobytes = CACHED[name]
    assert plan.cache_bytes_per_token(shape) == pytest.approx(1000 * kilobytes, rel=1e-12)


def test_the_operations_of_a_token_are_those_that_its_authors_give():
    """250 GFLOPs in training, sequences of 4096 (the same paper, table 2), which count half the square."""
    flops = plan.flops_per_token(DEEPSEEK, seq_len=4096, experts=EXPERTS)
    assert (flops.total - flops["attention_scores"] / 2) / 1e9 == pytest.approx(250, abs=0.5)


B, T = 2, 32
# Heads of 16 + 8 numbers, and values of as many: torch's fused kernel on the CPU wants the same of both.
NUMBERS = {
    "vocab_size": 64,
    "max_seq_len": T,
    "d_model": 32,
    "n_layers": 3,
    "n_heads": 4,
    "d_ff": 48,
    **LLAMA,
}
SHAPES = {
    q_rank: LatentConfig(**NUMBERS, q_rank=q_rank, kv_rank=12, nope_dim=16, rope_dim=8, v_dim=24)
    for q_rank in (0, 20)
}


class Latent(nn.Module):
    """The attention of DeepSeek-V2, section 2.1, equations 9 to 19, as it is trained."""

    def __init__(self, shape):
        super().__init__()
        s = self.shape = shape
        width = s.n_heads * (s.nope_dim + s.rope_dim)
        self.query = nn.Linear(s.d_model, width, bias=False)
        if s.q_rank:
            down, norm = nn.Linear(s.d_model, s.q_rank, bias=False), nn.RMSNorm(s.q_rank)
            self.query = nn.Sequential(down, norm, nn.Linear(s.q_rank, width, bias=False))
        self.down = nn.Linear(s.d_model, s.kv_rank + s.rope_dim, bias=False)
        self.norm = nn.RMSNorm(s.kv_rank)
        self.up = nn.Linear(s.kv_rank, s.n_heads * (s.nope_dim + s.v_dim), bias=False)
        self.output = nn.Linear(s.n_heads * s.v_dim, s.d_model, bias=False)

    def forward(self, x, *, rotary, cache=None):
        s = self.shape
        q = self.query(x).unflatten(-1, (s.n_heads, -1)).transpose(1, 2)
        straight, turned = q.split([s.nope_dim, s.rope_dim], dim=-1)
        latent, key = self.down(x).split([s.kv_rank, s.rope_dim], dim=-1)
        key = rotary(key.unsqueeze(1)).expand(-1, s.n_heads, -1, -1)
        k, v = (
            self.up(self.norm(latent.contiguous()))
            .unflatten(-1, (s.n_heads, -1))
            .transpose(1, 2)
            .split([s.nope_dim, s.v_dim], dim=-1)
        )
        q, k = torch.cat([straight, rotary(turned)], dim=-1), torch.cat([k, key], dim=-1)
        y = scaled_dot_product_attention(q, k, v.contiguous(), is_causal=True)
        return self.output(y.transpose(1, 2).flatten(2))


def model_of(shape):
    """Return a GPT of ordinary blocks with latent attention in the place of theirs."""
    llama = {name: value for name, value in dataclasses.asdict(shape).items() if name not in LATENT}
    model = GPT(type(preset("gpt2"))(**llama))
    for block in model.blocks:
        block.attention = Latent(shape)
    return model


LATENT = ("q_rank", "kv_rank", "nope_dim", "rope_dim", "v_dim")


def run_step(model):
    ids, labels = torch.randint(64, (2, B, T), generator=torch.Generator().manual_seed(0))
    cross_entropy(model(ids).flatten(0, 1), labels.flatten()).backward()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_model_has_the_parameters_and_operations_that_are_planned(shape):
    model = model_of(shape)
    assert sum(p.numel() for p in model.parameters()) == num_params(shape) == plan.parameters(shape).total
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(B, T, dtype=torch.long))
    # The counter does not see the fused attention of a CPU.
    assert 3 * counter.get_total_flops() == B * T * plan.flops_per_token(shape).total


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_autograd_saves_what_is_predicted_to_the_byte(shape):
    model = model_of(shape)
    with measure_saved_tensors(exclude=model.parameters()) as saved:
        run_step(model)
    layout = plan.Layout(micro_batch_size=B)
    options = {"seq_len": T, "recipe": "fp32_16"}
    predicted = (
        plan.activations(shape, layout, **options).total + plan.memory(shape, layout, **options)["logits"]
    )
    # As in test_activation_memory.py: on the CPU an RMS norm keeps two tensors for one, and the loss a count.
    latents = shape.n_layers * (shape.q_rank + shape.kv_rank)
    on_cpu = B * T * 4 * ((2 * shape.n_layers + 1) * shape.d_model + latents) + 4
    assert saved.peak_bytes == predicted + on_cpu


def test_tensor_parallel_ranks_divide_the_heads_and_have_the_latents_whole():
    shape = SHAPES[20]
    layouts = [plan.Layout(tp_size=tp, sequence_parallel=tp > 1) for tp in (1, 2)]
    whole, half = (plan.memory(shape, layout, seq_len=T, recipe="fp32_16") for layout in layouts)
    d, norms = shape.d_model, 2 * shape.d_model + 20 + 12
    each = 3 * (d * 20 + d * (12 + 8) + norms) + d
    assert 2 * half["parameters"] - whole["parameters"] == 4 * each
    # Sequence parallelism divides what is kept of latents as well.
    one, two = (plan.activations(shape, layout, seq_len=T, recipe="fp32_16") for layout in layouts)
    assert all(two[name] == one[name] / 2 for name in ("norm_inputs", "linear_inputs", "queries_keys_values"))


def test_ring_attention_sends_every_heads_key_and_value():
    shape = SHAPES[20]
    sent = plan.communication(shape, plan.Layout(cp_size=2), seq_len=T, recipe="fp32_16")["context"]
    assert sent == 3 * 2 * (1 / 2) * T * shape.n_heads * (16 + 8 + 24) * 4


def test_no_model_with_latent_attention_is_built_as_if_it_had_full_heads():
    with pytest.raises(InputError, match="planned, not built"):
        GPT(SHAPES[20])


WRONG = {"no width of values": {"v_dim": 0}, "no latent": {"kv_rank": 0}, "half a pair": {"rope_dim": 7}}


@pytest.mark.parametrize("numbers", WRONG.values(), ids=WRONG)
def test_numbers_that_cannot_be_are_refused(numbers):
    with pytest.raises(InputError, match=next(iter(numbers))):
        dataclasses.replace(SHAPES[20], **numbers)
