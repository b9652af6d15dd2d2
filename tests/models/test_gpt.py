"""The GPT against a transcription of its equations, which uses no coursekit code and no torch module."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, naive_attention

RTOL = 1e-12
TINY = GPTConfig(vocab_size=13, max_seq_len=12, d_model=16, n_layers=3, n_heads=4)
LLAMA = {"norm": "rmsnorm", "activation": "swiglu", "position": "rope", "bias": False}
TINY_LLAMA = dataclasses.replace(TINY, n_kv_heads=2, tie_embeddings=False, **LLAMA)

OPTIONS = {
    "norm": ["layernorm", "rmsnorm"],
    "activation": ["gelu", "swiglu"],
    "position": ["learned", "rope"],
    "n_kv_heads": [4, 2],
    "bias": [True, False],
}
VARIANTS = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]


def model_of(config, seed=0):
    """Return a float64 model whose every parameter is far from its initial value, norms and biases too."""
    torch.manual_seed(seed)
    model = GPT(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def ids_of(config, batch_size=2, seq_len=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch_size, seq_len), generator=generator)


def reference_logits(state, config, input_ids):
    """The oracle: the equations, one token position and one head at a time where that is how they read."""
    d, k = config.d_model, config.d_model // config.n_heads

    def linear(x, name):
        y = torch.einsum("...i,oi->...o", x, state[f"{name}.weight"])
        return y + state[f"{name}.bias"] if f"{name}.bias" in state else y

    def norm(x, name):
        if config.norm == "layernorm":
            x = x - x.sum(-1, keepdim=True) / d
        x = x / torch.sqrt((x * x).sum(-1, keepdim=True) / d + config.norm_eps) * state[f"{name}.weight"]
        return x + state[f"{name}.bias"] if f"{name}.bias" in state else x

    def turn(x, position):
        """Multiply the k numbers of one head by the block-diagonal rotation matrix of RoFormer's eq. 15."""
        if config.position == "learned":
            return x
        rotation = torch.zeros(k, k, dtype=x.dtype)
        for i in range(k // 2):
            angle = position * config.rope_theta ** (-2 * i / k)
            rotation[2 * i, 2 * i] = rotation[2 * i + 1, 2 * i + 1] = math.cos(angle)
            rotation[2 * i, 2 * i + 1], rotation[2 * i + 1, 2 * i] = -math.sin(angle), math.sin(angle)
        return rotation @ x

    def attention(x, name):  # x is (t, d)
        q, keys, values = (linear(x, f"{name}.{part}_proj") for part in "qkv")
        heads = []
        for head in range(config.n_heads):
            own = slice(head * k, head * k + k)
            shared = head * config.n_kv_heads // config.n_heads
            theirs = slice(shared * k, shared * k + k)
            rows = []
            for t in range(len(x)):
                query = turn(q[t, own], t)
                scores = torch.stack([turn(keys[s, theirs], s) @ query for s in range(t + 1)]) / math.sqrt(k)
                weights = scores.exp() / scores.exp().sum()
                rows.append(weights @ values[: t + 1, theirs])
            heads.append(torch.stack(rows))
        return linear(torch.cat(heads, -1), f"{name}.o_proj")

    def feed_forward(x, name):
        up = linear(x, f"{name}.up_proj")
        if config.activation == "swiglu":
            gate = linear(x, f"{name}.gate_proj")
            return linear(gate / (1 + (-gate).exp()) * up, f"{name}.down_proj")
        inside = math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)
        return linear(0.5 * up * (1 + inside.tanh()), f"{name}.down_proj")

    def logits_of(ids):
        x = state["token_embedding.weight"][ids]
        if config.position == "learned":
            x = x + state["position_embedding.weight"][: len(ids)]
        for index in range(config.n_layers):
            block = f"blocks.{index}"
            x = x + attention(norm(x, f"{block}.attention_norm"), f"{block}.attention")
            x = x + feed_forward(norm(x, f"{block}.feed_forward_norm"), f"{block}.feed_forward")
        head = "token_embedding.weight" if config.tie_embeddings else "lm_head.weight"
        return norm(x, "final_norm") @ state[head].T

    return torch.stack([logits_of(ids) for ids in input_ids])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def test_logits_equal_the_equations(variant):
    config = dataclasses.replace(TINY, **variant)
    model = model_of(config)
    input_ids = ids_of(config, batch_size=1, seq_len=5)
    expected = reference_logits(model.state_dict(), config, input_ids)
    torch.testing.assert_close(model(input_ids), expected, rtol=RTOL, atol=1e-12)


def test_gradients_equal_those_of_the_equations():
    for config in (TINY, TINY_LLAMA):
        model, input_ids = model_of(config), ids_of(config)
        state = {name: value.clone().requires_grad_() for name, value in model.state_dict().items()}
        for logits in (model(input_ids), reference_logits(state, config, input_ids)):
            F.cross_entropy(logits.flatten(0, 1), input_ids.flatten()).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "change",
    [
        {"position": "learned"},
        {"activation": "gelu"},
        {"norm": "layernorm"},
        {"norm_eps": 1e-3},
        {"rope_theta": 1000.0},
        {"n_kv_heads": 1},
    ],
    ids=str,
)
def test_control_the_oracle_rejects_another_config(change):
    model, input_ids = model_of(TINY_LLAMA), ids_of(TINY_LLAMA)
    state = model.state_dict() | {"position_embedding.weight": torch.ones(12, 16, dtype=torch.float64)}
    other = dataclasses.replace(TINY_LLAMA, **change)
    assert not torch.allclose(
        model(input_ids), reference_logits(state, other, input_ids), rtol=1e-3, atol=1e-3
    )


def halves_instead_of_neighbours(self, x):
    """The famous bug: weights made for rotated neighbours, run with rotated halves."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * self.cos - b * self.sin, b * self.cos + a * self.sin), -1)


def test_control_the_oracle_rejects_the_other_pairing_of_dimensions(monkeypatch):
    model, input_ids = model_of(TINY_LLAMA), ids_of(TINY_LLAMA)
    expected = reference_logits(model.state_dict(), TINY_LLAMA, input_ids)
    monkeypatch.setattr("coursekit.models.rotary.Rotary.__call__", halves_instead_of_neighbours)
    assert not torch.allclose(model(input_ids), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [TINY, TINY_LLAMA], ids=["gpt2", "llama"])
def test_no_logit_sees_a_later_token(config):
    model, input_ids = model_of(config), ids_of(config)
    changed = input_ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % config.vocab_size
    before, after = model(input_ids), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all(-1).any()


@pytest.mark.parametrize("config", [TINY, TINY_LLAMA], ids=["gpt2", "llama"])
def test_the_attention_function_can_be_replaced(config):
    model, input_ids = model_of(config), ids_of(config)
    expected = model(input_ids)
    for block in model.blocks:
        block.attention.attend = lambda q, k, v, *, dropout_p: naive_attention(q, k, v)
    torch.testing.assert_close(model(input_ids), expected, rtol=RTOL, atol=1e-13)


@pytest.mark.parametrize("config", [TINY, TINY_LLAMA], ids=["gpt2", "llama"])
def test_stages_one_after_another_are_the_whole_model(config):
    whole, input_ids = model_of(config), ids_of(config)
    first, last = model_of(config), model_of(config)
    first.final_norm = first.lm_head = None
    first.blocks[2] = None
    last.token_embedding = last.position_embedding = None
    last.blocks[0] = last.blocks[1] = None
    hidden = first(input_ids)
    assert hidden.shape == (2, 9, config.d_model)
    assert torch.equal(last(hidden), whole(input_ids))
    assert set(first.state_dict()) | set(last.state_dict()) == set(whole.state_dict())


@pytest.mark.parametrize("config", [TINY, TINY_LLAMA], ids=["gpt2", "llama"])
def test_positions_say_where_a_part_of_a_sequence_stands(config):
    """A token that sees itself alone: its position counts with a table, and not with rope."""
    model, input_ids = model_of(config), ids_of(config, seq_len=1)
    moved = model(input_ids, positions=torch.tensor([7]))
    if config.position == "learned":
        with torch.no_grad():
            model.position_embedding.weight[0] = model.position_embedding.weight[7]
    torch.testing.assert_close(moved, model(input_ids), rtol=RTOL, atol=1e-13)


def test_a_shard_of_the_projections_computes_a_shard_of_the_heads():
    attention = model_of(TINY_LLAMA).blocks[0].attention
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    expected, parts = attention(x), []
    for half in (0, 1):
        shard = model_of(TINY_LLAMA).blocks[0].attention
        for name in ("q_proj", "k_proj", "v_proj"):
            projection = getattr(shard, name)
            projection.weight = nn.Parameter(projection.weight.chunk(2)[half].detach())
        shard.o_proj.weight = nn.Parameter(shard.o_proj.weight.chunk(2, dim=1)[half].detach())
        parts.append(shard(x))
    torch.testing.assert_close(sum(parts), expected, rtol=RTOL, atol=1e-13)


def test_fresh_weights_have_the_published_spread():
    torch.manual_seed(0)  # else what this process drew before decides, and of some hundred states one fails
    model = GPT(dataclasses.replace(TINY, d_model=256, n_layers=8, vocab_size=500, max_seq_len=256))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            assert parameter.unique().tolist() == [float(name.endswith("norm.weight"))]
        else:
            expected = 0.02 / 4 if "o_proj" in name or "down_proj" in name else 0.02  # 4 = √(2 · 8 layers)
            assert parameter.std().item() == pytest.approx(expected, rel=0.02)


def test_the_generator_decides_the_weights():
    def weights(seed):
        model = GPT(TINY)
        model.init_weights(torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("config", [TINY, TINY_LLAMA], ids=["gpt2", "llama"])
def test_a_model_made_on_the_meta_device_becomes_a_real_one(config):
    with torch.device("meta"):
        model = GPT(config)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)  # what memory may hold
    model.init_weights(torch.Generator().manual_seed(0))
    expected = GPT(config)
    expected.init_weights(torch.Generator().manual_seed(0))
    assert (model.lm_head.weight is model.token_embedding.weight) == config.tie_embeddings
    for (name, parameter), (other_name, other) in zip(
        model.named_parameters(), expected.named_parameters(), strict=True
    ):
        assert name == other_name
        assert torch.equal(parameter, other)


def test_control_to_empty_alone_unties_the_embeddings():
    with torch.device("meta"):
        model = GPT(TINY)
    model.to_empty(device="cpu")
    assert model.lm_head.weight is not model.token_embedding.weight


def test_dropout_acts_in_training_alone():
    model, input_ids = model_of(dataclasses.replace(TINY, dropout=0.5)), ids_of(TINY)
    assert not torch.equal(model(input_ids), model(input_ids))
    model.eval()
    assert torch.equal(model(input_ids), model(input_ids))
    assert torch.equal(model(input_ids), model_of(TINY)(input_ids))


def error_in_bfloat16(positions):
    model, input_ids = model_of(TINY_LLAMA), ids_of(TINY_LLAMA)
    exact = model(input_ids, positions=positions)
    return (model.bfloat16()(input_ids, positions=positions) - exact).norm().item()


def test_far_positions_cost_no_precision_in_bfloat16():
    near, far = torch.arange(9), torch.arange(4096, 4105)
    assert error_in_bfloat16(far) < 1.5 * error_in_bfloat16(near)


def test_control_angles_in_bfloat16_lose_far_positions(monkeypatch):
    near, far = torch.arange(9), torch.arange(4096, 4105)
    monkeypatch.setattr(torch, "promote_types", lambda dtype, _: dtype)
    assert error_in_bfloat16(far) > 3 * error_in_bfloat16(near)


def test_a_longer_sequence_than_the_position_table_is_an_error():
    with pytest.raises(InputError, match="up to max_seq_len=12 tokens, got 13"):
        GPT(TINY)(torch.zeros(1, 13, dtype=torch.long))
    assert GPT(TINY_LLAMA)(torch.zeros(1, 13, dtype=torch.long)).shape == (1, 13, 13)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", [TINY, TINY_LLAMA], ids=["gpt2", "llama"])
def test_on_cuda_logits_equal_those_on_the_cpu(config):
    model, input_ids = model_of(config), ids_of(config)
    expected = model(input_ids)
    logits = model.cuda()(input_ids.cuda())
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-10, atol=1e-10)
