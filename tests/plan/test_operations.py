"""Operations against torch's own counter, and the plain functions of time, money and energy."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from coursekit import plan
from coursekit.formulas.scaling_laws import parametric_optimal_params
from coursekit.models import GPT, GPTConfig, naive_attention, use_experts
from coursekit.train import checkpoint_layers

B, T = 2, 16
GPT2 = GPTConfig(64, T, d_model=32, n_layers=2, n_heads=4)
LLAMA = GPTConfig(
    64, T, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=48, activation="swiglu", position="rope"
)


def counted(shape, prepare=lambda model: None):
    """Return the operations a token that torch counts in forward and backward pass."""
    model = GPT(shape)
    for block in model.blocks:
        # Written out, since torch's counter does not know the CPU's fused attention.
        block.attention.attend = lambda q, k, v, dropout_p: naive_attention(q, k, v)
    prepare(model)
    ids = torch.zeros(B, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    return counter.get_total_flops() / (B * T)


@pytest.mark.parametrize("shape", [GPT2, LLAMA])
def test_torch_counts_as_many_operations(shape):
    assert plan.flops_per_token(shape, seq_len=T).total == counted(shape)


@pytest.mark.parametrize("shape", [GPT2, LLAMA])
def test_full_checkpointing_computes_the_layers_once_more_but_for_their_last_product(shape):
    predicted = plan.flops_per_token(shape, seq_len=T, checkpointing="full").total
    # torch stops computing again when all that is needed is there, and the output of `down_proj` is not.
    spared = 2 * shape.n_layers * shape.d_model * shape.d_ff
    assert counted(shape, lambda model: checkpoint_layers(model.blocks)) == predicted - spared


def test_a_token_uses_top_k_experts_and_the_router():
    experts = plan.ExpertLayers(4, top_k=4)
    got = counted(GPT2, lambda model: use_experts(model, 4, top_k=4))
    assert plan.flops_per_token(GPT2, seq_len=T, experts=experts).total == got
    one, two = (plan.flops_per_token(GPT2, experts=plan.ExpertLayers(4, top_k=k))["experts"] for k in (1, 2))
    assert two == 2 * one


def test_six_n_is_the_operations_without_what_is_looked_up():
    shape = GPTConfig(64, T, d_model=32, n_layers=2, n_heads=4, bias=False, tie_embeddings=False)
    parts = plan.parameters(shape)
    multiplied = parts.total - parts["embeddings"] - parts["norms"]
    assert plan.flops_per_token(shape).total == 6 * multiplied


def test_an_embedding_that_is_counted_as_a_product_would_be_noticed():
    wrong = plan.flops_per_token(GPT2, seq_len=T).total + 6 * GPT2.vocab_size * GPT2.d_model
    assert wrong > 1.05 * counted(GPT2)


def test_the_fitted_loss_is_least_where_its_minimum_is_said_to_be():
    flops = 1e22
    best = parametric_optimal_params(flops)
    losses = [plan.parametric_loss(n, flops / (6 * n)) for n in (0.9 * best, best, 1.1 * best)]
    assert min(losses) == losses[1]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: plan.training_seconds(1e20, num_devices=8, peak_flops_per_second=1e15, mfu=40),
        lambda: plan.training_seconds(1e20, num_devices=0, peak_flops_per_second=1e15, mfu=0.4),
        lambda: plan.mfu(1e5, flops_per_token=6e9, num_devices=8, peak_flops_per_second=0),
        lambda: plan.compute_optimal_tokens(0),
        lambda: plan.communication_seconds(1e9, bandwidth_bytes_per_second=0),
    ],
)
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        wrong()
