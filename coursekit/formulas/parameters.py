"""Numbers of parameters of a GPT, whole or on one rank of a layout."""

from __future__ import annotations

import math

from coursekit.formulas.attention import attention_widths
from coursekit.formulas.total import total


def linear_parameters(d_in: int, d_out: int, bias: bool) -> int:
    """Return the parameters of a linear layer: d_in · d_out, and with a bias d_out more."""
    if bias:
        return d_in * d_out + d_out
    return d_in * d_out


def column_parallel_parameters(d_in: int, d_out: int, bias: bool, tp_size: int) -> int:
    """Return a rank's parameters of a linear layer whose outputs are divided: weight and bias both are."""
    return linear_parameters(d_in, d_out // tp_size, bias)


def row_parallel_parameters(d_in: int, d_out: int, bias: bool, tp_size: int) -> int:
    """Return a rank's parameters of a linear layer whose inputs are divided: the bias is on every rank."""
    return linear_parameters(d_in // tp_size, d_out, bias)


def norm_parameters(d_model: int, norm: str, bias: bool) -> int:
    """Return the parameters of a norm: d gains, and for a layer norm with bias d shifts."""
    if norm == "layernorm" and bias:
        return 2 * d_model
    return d_model


def attention_parameters(
    d_model: int,
    n_heads: int,
    n_kv_heads: int,
    q_rank: int,
    kv_rank: int,
    nope_dim: int,
    rope_dim: int,
    v_dim: int,
    bias: bool,
    tp_size: int,
) -> int:
    """Return a rank's parameters of one attention layer: q, k, v column-parallel, o row-parallel.

    d (2 h k + 2 n_kv_heads k) weights on one rank, where k = d / h. With latent attention (see
    `attention_widths`) q and the matrices that make keys and values out of their latents are
    column-parallel, and those that make the latents are whole on every rank. The norms of the latents are
    counted with the other norms.

    Source: DeepSeek-AI 2024, DeepSeek-V2, section 2.1.2 (https://arxiv.org/abs/2405.04434).
    """
    widths = attention_widths(d_model, n_heads, n_kv_heads, kv_rank, nope_dim, rope_dim, v_dim)
    output = row_parallel_parameters(widths["outputs"], d_model, bias, tp_size)
    query = column_parallel_parameters(d_model, widths["queries"], bias, tp_size)
    if q_rank > 0:
        query = linear_parameters(d_model, q_rank, bias) + column_parallel_parameters(
            q_rank, widths["queries"], bias, tp_size
        )
    if kv_rank > 0:
        made = column_parallel_parameters(kv_rank, n_heads * (nope_dim + v_dim), bias, tp_size)
        return query + linear_parameters(d_model, kv_rank + rope_dim, bias) + made + output
    return query + 2 * column_parallel_parameters(d_model, widths["keys"], bias, tp_size) + output


def feed_forward_parameters(d_model: int, d_ff: int, activation: str, bias: bool, tp_size: int) -> int:
    """Return a rank's parameters of one feed-forward layer: on one rank 2 d d_ff weights, for swiglu 3."""
    up = column_parallel_parameters(d_model, d_ff, bias, tp_size)
    down = row_parallel_parameters(d_ff, d_model, bias, tp_size)
    if activation == "swiglu":
        return 2 * up + down
    return up + down


def vocabulary_rows(vocab_size: int, tp_size: int) -> int:
    """Return the rows of the embedding on a rank. The vocabulary is padded until it divides."""
    return math.ceil(vocab_size / tp_size)


def layers_on_stage(n_layers: int, pp_size: int, stage: int) -> int:
    """Return the layers of a pipeline stage, as equal as can be.

    Where they do not divide, the first and the last stage, which have embeddings and head as well, are the
    last to get one more: Llama 3 405B has 126 layers on 16 stages, 7 on these two and 8 on all others.

    Source: Grattafiori et al. 2024, section 3.3.2 (https://arxiv.org/abs/2407.21783).
    """
    left = n_layers % pp_size
    place = stage  # in the order of getting one more: stages 1, 2, ..., the last, and then 0
    if stage == 0:
        place = pp_size
    if place <= left:
        return n_layers // pp_size + 1
    return n_layers // pp_size


def layers_before_stage(n_layers: int, pp_size: int, stage: int) -> int:
    """Return how many layers the earlier stages have, as `layers_on_stage` spreads them."""
    if stage == 0:
        return 0
    return n_layers // pp_size * stage + min(stage - 1, n_layers % pp_size)


def expert_layers_on_stage(
    n_layers: int, pp_size: int, stage: int, n_experts: int, every: int, first_dense_layers: int
) -> int:
    """Return how many of a stage's layers have experts: each `every`-th, after the model's first dense ones.

    Source: DeepSeek-AI 2024, section 4.2 (https://arxiv.org/abs/2412.19437), for dense layers before the
        others: three, of 61.
    """
    if n_experts == 0:
        return 0
    layers = layers_on_stage(n_layers, pp_size, stage)
    dense = first_dense_layers - layers_before_stage(n_layers, pp_size, stage)
    return (layers - min(layers, max(0, dense))) // every


def expert_parameters(
    d_model: int, expert_d_ff: int, activation: str, bias: bool, n_experts: int, ep_size: int, tp_size: int
) -> int:
    """Return a rank's parameters of one layer's experts: E / ep_size feed-forward layers."""
    return n_experts // ep_size * feed_forward_parameters(d_model, expert_d_ff, activation, bias, tp_size)


def parameters_on_rank(
    vocab_size: int,
    max_seq_len: int,
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
    norm: str,
    activation: str,
    position: str,
    bias: bool,
    tie_embeddings: bool,
    n_experts: int,
    experts_every: int,
    expert_d_ff: int,
    n_shared_experts: int,
    first_dense_layers: int,
    ep_size: int,
    tp_size: int,
    pp_size: int,
    stage: int,
) -> dict[str, int]:
    """Return the parameters of a rank by part; with all sizes 1 those of the whole model.

        embeddings   v d, and with learned positions max_seq_len d          first stage
        attention    d (2 h k + 2 n_kv_heads k) a layer; latent: see `attention_parameters`
        feed_forward 2 d d_ff, with swiglu 3 d d_ff, a layer without experts; shared experts
        experts      E times as much with expert_d_ff for d_ff, a layer with experts
        routers      E d, a layer with experts
        norms        d, for a layer norm with bias 2 d; two a layer, and those of latents
        final_norm   one more                                               last stage
        head         v d, with tied embeddings 0                            last stage

    and the biases. Tied embeddings are there twice if first and last stage are two ranks.

    Where:
        q_rank: numbers of the latent out of which queries are made; 0 makes them out of d directly.
        kv_rank: as for `attention_widths`, and so the three after it; 0 is attention without latents.
        n_experts: E; 0 is a model without.
        experts_every: 1 is all layers, 2 every second one.
        expert_d_ff: width inside one expert.
        n_shared_experts: experts that every token uses; each ep rank has them whole.
        first_dense_layers: the model's first layers, which have no experts.
        stage: of the pipeline, from 0.
    """
    layers = layers_on_stage(n_layers, pp_size, stage)
    sparse = expert_layers_on_stage(n_layers, pp_size, stage, n_experts, experts_every, first_dense_layers)
    table = vocabulary_rows(vocab_size, tp_size) * d_model
    embeddings = 0
    if stage == 0:
        embeddings = table
        if position == "learned":
            embeddings = table + max_seq_len * d_model
    head = 0
    final_norm = 0
    if stage == pp_size - 1:
        final_norm = norm_parameters(d_model, norm, bias)
        if not tie_embeddings or pp_size > 1:
            head = table
    dense = feed_forward_parameters(d_model, d_ff, activation, bias, tp_size)
    shared = n_shared_experts * feed_forward_parameters(d_model, expert_d_ff, activation, bias, tp_size)
    experts = expert_parameters(d_model, expert_d_ff, activation, bias, n_experts, ep_size, tp_size)
    attention = attention_parameters(
        d_model, n_heads, n_kv_heads, q_rank, kv_rank, nope_dim, rope_dim, v_dim, bias, tp_size
    )
    latent_norms = norm_parameters(kv_rank, norm, bias) + norm_parameters(q_rank, norm, bias)
    return {
        "embeddings": embeddings,
        "attention": layers * attention,
        "feed_forward": (layers - sparse) * dense + sparse * shared,
        "experts": sparse * experts,
        "routers": sparse * n_experts * d_model,
        "norms": layers * (2 * norm_parameters(d_model, norm, bias) + latent_norms),
        "final_norm": final_norm,
        "head": head,
    }


def parameters_outside_layers(params: dict[str, float]) -> float:
    """Return how many of a rank's parameters belong to no layer, given what `parameters_on_rank` gives."""
    return params["embeddings"] + params["final_norm"] + params["head"]


def parameters_used(params: dict[str, float], n_experts: int, top_k: int) -> float:
    """Return how many parameters a token uses: all, but of the routed experts those that are chosen.

    Where:
        params: of the whole model, as `parameters_on_rank` gives them.
        n_experts: E; 0 is a model without.
        top_k: k.
    Source: Jiang et al. 2024, section 2.1 (https://arxiv.org/abs/2401.04088).
    """
    if n_experts == 0:
        return total(params)
    return total(params) - params["experts"] * (1 - top_k / n_experts)
