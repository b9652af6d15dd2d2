"""The mixture of experts against a loop over single tokens, which uses no coursekit code, in float64."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, MoE, mix_experts_naive, num_params, record_routing, use_experts

RTOL = 1e-12
GELU = GPTConfig(vocab_size=13, max_seq_len=8, d_model=6, n_layers=4, n_heads=2, d_ff=10)
SWIGLU = dataclasses.replace(GELU, activation="swiglu", bias=False)


def moe_of(config=GELU, n_experts=5, seed=0, **options):
    """Return a float64 MoE whose router is decided and whose biases are not zero."""
    torch.manual_seed(seed)
    moe = MoE(config, n_experts, **options).double()
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return moe


def tokens(n=11, seed=1):
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference_mixture(state, x, top_k, capacity=math.inf, *, defect=""):
    """The oracle: (y, dropped choices), one token and one choice at a time."""

    def expert_output(i, row):
        def linear(row, name):
            y = row @ state[f"experts.{name}_proj"][i]
            return y + state[f"experts.{name}_bias"][i, 0] if f"experts.{name}_bias" in state else y

        up = linear(row, "up")
        if "experts.gate_proj" in state:
            gate = linear(row, "gate")
            return linear(gate / (1 + (-gate).exp()) * up, "down")
        return linear(0.5 * up * (1 + (math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)).tanh()), "down")

    chosen, gates = [], []
    for row in x:
        scores = (state["router.proj.weight"] @ row).exp()
        probabilities = scores / scores.sum()
        likeliest = sorted(range(len(scores)), key=lambda i: -probabilities[i].item())[:top_k]
        total = sum(probabilities[i] for i in likeliest) if top_k > 1 and defect != "unnormalised" else 1
        chosen.append(likeliest)
        gates.append([probabilities[i] / total for i in likeliest])
    y, dropped, taken = [torch.zeros_like(row) for row in x], 0, {}
    in_turn = [(choice, token) for choice in range(top_k) for token in range(len(x))]
    if defect == "token order":  # a later token's first choice after an earlier one's second
        in_turn = [(choice, token) for token in range(len(x)) for choice in range(top_k)]
    for choice, token in in_turn:
        i = chosen[token][choice]
        taken[i] = taken.get(i, 0) + 1
        if taken[i] > capacity:
            dropped += 1
        else:
            y[token] = y[token] + gates[token][choice] * expert_output(i, x[token])
    return torch.stack(y), dropped


def capacity_of(factor, n, top_k, n_experts):
    return math.inf if factor is None else math.ceil(factor * n * top_k / n_experts)


both = pytest.mark.parametrize("config", [GELU, SWIGLU], ids=["gelu", "swiglu"])


@both
@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("factor", [None, 1.0, 0.5, 9.0])
def test_it_equals_a_loop_over_tokens(config, top_k, factor):
    moe, x = moe_of(config, top_k=top_k, capacity_factor=factor), tokens()
    expected, dropped = reference_mixture(moe.state_dict(), x, top_k, capacity_of(factor, 11, top_k, 5))
    with record_routing(moe) as routings:
        y = moe(x)
    torch.testing.assert_close(y, expected, rtol=RTOL, atol=1e-14)
    assert routings[0].num_dropped == dropped
    assert dropped > 0 if factor == 0.5 else (dropped == 0 or factor == 1.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 14), st.integers(1, 6), st.data())
def test_all_experts_at_once_equal_one_at_a_time(n, n_experts, data):
    top_k = data.draw(st.integers(1, n_experts))
    factor = data.draw(st.none() | st.floats(0.1, 3.0))
    moe, x = moe_of(n_experts=n_experts, top_k=top_k, capacity_factor=factor), tokens(n)
    routing = moe.router(x)
    naive = mix_experts_naive(moe.experts, x, routing)
    torch.testing.assert_close(moe.experts(x, routing), naive, rtol=RTOL, atol=1e-14)


@both
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("factor", [None, 0.8])
def test_gradients_equal_those_of_the_loop(config, top_k, factor):
    moe, x = moe_of(config, top_k=top_k, capacity_factor=factor), tokens().requires_grad_()
    state = {name: value.clone().requires_grad_() for name, value in moe.state_dict().items()}
    copy = x.detach().clone().requires_grad_()
    moe(x).square().sum().backward()
    expected, _ = reference_mixture(state, copy, top_k, capacity_of(factor, 11, top_k, 5))
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, copy.grad, rtol=RTOL, atol=1e-13)
    for name, parameter in moe.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, rtol=RTOL, atol=1e-13)
    assert moe.router.proj.weight.grad.norm() > 1e-3


@pytest.mark.parametrize("defect", ["unnormalised", "token order"])
def test_control_the_oracle_rejects(defect):
    moe, x = moe_of(top_k=2, capacity_factor=0.6), tokens()
    capacity = capacity_of(0.6, 11, 2, 5)
    right, _ = reference_mixture(moe.state_dict(), x, 2, capacity)
    wrong, _ = reference_mixture(moe.state_dict(), x, 2, capacity, defect=defect)
    torch.testing.assert_close(moe(x), right, rtol=RTOL, atol=1e-14)
    assert not torch.allclose(moe(x), wrong, rtol=1e-3, atol=1e-3)


def test_with_all_experts_chosen_it_is_the_dense_mixture():
    moe, x = moe_of(top_k=5), tokens()
    outputs = moe.experts.feed_forward(x.expand(5, -1, -1))
    weights = (x @ moe.router.proj.weight.T).softmax(-1)
    dense = torch.einsum("ne,end->nd", weights, outputs)
    torch.testing.assert_close(moe(x), dense, rtol=RTOL, atol=1e-14)


def test_a_token_whose_every_choice_was_dropped_adds_nothing():
    moe, x = moe_of(top_k=1, capacity_factor=0.01), tokens()  # one place an expert
    y, kept = moe(x), moe.router(x).kept[:, 0]
    assert 0 < (~kept).sum() == moe.router(x).num_dropped
    assert (y[~kept] == 0).all()
    assert (y[kept] != 0).any(-1).all()


def test_leading_dims_and_dtype_are_kept():
    moe = moe_of().bfloat16()
    x = torch.randn(2, 3, 6, dtype=torch.bfloat16)
    assert moe(x).shape == x.shape
    assert moe(x).dtype == torch.bfloat16
    routing = moe.router(x[0])
    assert routing.logits.dtype == torch.float32
    naive = mix_experts_naive(moe.experts, x[0], routing)
    torch.testing.assert_close(moe(x[0]), naive, rtol=0.02, atol=0.02)  # a rounding to 8 bits a choice


def test_under_autocast_the_router_stays_in_float32():
    moe, x = moe_of().float(), tokens().float()
    expected = moe.router(x).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(moe.router(x).logits, expected)
        y = moe(x)
    assert not torch.equal(y, moe(x))  # the experts do not
    torch.testing.assert_close(y, moe(x), rtol=0.05, atol=0.05)


def test_a_gpt_with_experts_learns_and_every_router_gets_a_gradient():
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(SWIGLU, n_layers=2))
    use_experts(model, 4, capacity_factor=1.25)
    input_ids = torch.randint(13, (4, 8))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.03), []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(model(input_ids).flatten(0, 1), input_ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(block.feed_forward.router.proj.weight.grad.norm() > 0 for block in model.blocks)


def test_experts_replace_every_second_layer_and_add_the_parameters_of_the_formula():
    model = GPT(SWIGLU)
    use_experts(model, 4, every=2)
    assert [isinstance(block.feed_forward, MoE) for block in model.blocks] == [False, True] * 2
    added = 2 * (3 * (3 * 6 * 10) + 4 * 6)  # two layers: three more experts, and a router
    assert sum(p.numel() for p in model.parameters()) == num_params(SWIGLU) + added


@both
def test_a_model_with_experts_is_made_on_the_meta_device(config):
    with torch.device("meta"):
        model = GPT(config)
        use_experts(model, 3)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.init_weights()
    assert not any(parameter.isnan().any() for parameter in model.parameters())
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 13)


def test_fresh_experts_have_the_spread_of_a_feed_forward_layer():
    moe = MoE(dataclasses.replace(GELU, d_model=64, d_ff=256, n_layers=8), 4)
    assert moe.experts.up_proj.std().item() == pytest.approx(0.02, rel=0.02)
    assert moe.experts.down_proj.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert moe.router.proj.weight.std().item() == pytest.approx(0.02, rel=0.2)  # 256 numbers
    assert not moe.experts.up_bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, r"expected a whole top_k >= 1, got 0"),
        ({"top_k": 6}, r"wrong top_k: expected 1 to n_experts=5, got 6"),
        ({"capacity_factor": 0}, r"wrong capacity_factor: expected more than 0, or None, got 0"),
    ],
)
def test_wrong_settings_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        moe_of(**options)


def test_experts_in_no_block_are_an_error():
    with pytest.raises(InputError, match="every from 1 to 4, got 5"):
        use_experts(GPT(GELU), 2, every=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_with_a_capacity_nothing_waits_for_the_device():
    moe, x = moe_of(capacity_factor=1.0), tokens()
    expected = moe(x)
    moe, x = moe.cuda(), x.cuda()
    moe(x)  # warm-up
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = moe(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-10, atol=1e-12)
