"""Floating-point operations of a GPT: a multiplication and an addition are two."""

from __future__ import annotations

from coursekit.formulas.attention import attention_widths
from coursekit.formulas.parameters import (
    attention_parameters,
    expert_layers_on_stage,
    feed_forward_parameters,
)


def forward_flops(
    vocab_size: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    q_rank: int,
    kv_rank: int,
    nope_dim: int,
    rope_dim: int,
    v_dim: int,
    d_ff: int,
    activation: str,
    n_experts: int,
    experts_every: int,
    expert_d_ff: int,
    n_shared_experts: int,
    first_dense_layers: int,
    top_k: int,
    seq_len: int,
) -> dict[str, float]:
    """Return the operations of the matrix products of one token's forward pass, by part.

        linear layers  2 a weight; of experts those of the k that are chosen
        scores         2 d t for Q Kᵀ and 2 d t for the weights times V, a layer; latent: with its own widths
        head           2 v d

    Embeddings are looked up, biases, norms and activation functions are not counted. The scores are
    those of the full t × t square, as the convention has it, though a causal mask needs half.

    Where:
        kv_rank: as for `attention_widths`; 0 is attention without latents.
        seq_len: t; 0 leaves the scores out.
        n_experts: E; 0 is a model without. The others of experts as for `parameters_on_rank`.
    Source: Narayanan et al. 2021, appendix (https://arxiv.org/abs/2104.04473); Chowdhery et al. 2022,
        appendix B (https://arxiv.org/abs/2204.02311).
    """
    sparse = expert_layers_on_stage(n_layers, 1, 0, n_experts, experts_every, first_dense_layers)
    dense = 2 * feed_forward_parameters(d_model, d_ff, activation, False, 1)
    expert = 2 * feed_forward_parameters(d_model, expert_d_ff, activation, False, 1)
    projections = attention_parameters(
        d_model, n_heads, n_kv_heads, q_rank, kv_rank, nope_dim, rope_dim, v_dim, False, 1
    )
    widths = attention_widths(d_model, n_heads, n_kv_heads, kv_rank, nope_dim, rope_dim, v_dim)
    return {
        "attention_projections": n_layers * 2 * projections,
        "attention_scores": n_layers * 2 * (widths["queries"] + widths["outputs"]) * seq_len,
        "feed_forward": (n_layers - sparse) * dense + sparse * n_shared_experts * expert,
        "experts": sparse * top_k * expert,
        "routers": sparse * 2 * d_model * n_experts,
        "head": 2 * vocab_size * d_model,
    }


def recomputed_flops(parts_in_layers: float, attention_scores: float, checkpointing: str) -> float:
    """Return the operations a token that checkpointing does a second time.

    Where:
        parts_in_layers: of the forward pass, all layers, without the head.
        attention_scores: those of them that "selective" computes again.
        checkpointing: "none", "selective" or "full".
    Source: Korthikanti et al. 2022, appendix A (https://arxiv.org/abs/2205.05198).
    """
    if checkpointing == "full":
        return parts_in_layers
    if checkpointing == "selective":
        return attention_scores
    return 0.0


def training_flops(num_params: float, num_tokens: float) -> float:
    """Return 6 N D: two operations a parameter and token forward, four backward.

    Where:
        num_params: N; of a mixture of experts those that a token uses.
        num_tokens: D.
    Source: Kaplan et al. 2020, section 2.1 (https://arxiv.org/abs/2001.08361).
    """
    return 6 * num_params * num_tokens


def palm_flops_per_token(
    num_params: float, n_layers: int, n_heads: int, head_dim: int, seq_len: int
) -> float:
    """Return 6 N + 12 L H Q T, the operations a token by which PaLM defines MFU.

    Where:
        num_params: N, all of them, embeddings as well.
        n_layers: L.
        n_heads: H.
        head_dim: Q.
        seq_len: T; 0 leaves self-attention out.
    Source: Chowdhery et al. 2022, appendix B (https://arxiv.org/abs/2204.02311).
    """
    return 6 * num_params + 12 * n_layers * n_heads * head_dim * seq_len
