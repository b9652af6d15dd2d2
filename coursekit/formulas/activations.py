"""Bytes of activations: what the forward pass keeps for the backward pass."""

from __future__ import annotations

from coursekit.formulas.attention import attention_widths


def stream_share(tp_size: int, sequence_parallel: bool) -> float:
    """Return the share of the hidden states between the matrices that a tensor-parallel rank keeps."""
    if sequence_parallel:
        return 1 / tp_size
    return 1.0


def score_bytes(
    tokens: float,
    seq_len: int,
    n_heads: int,
    has_dropout: bool,
    attention: str,
    checkpointing: str,
    activation_bytes: float,
    tp_size: int,
) -> float:
    """Return the bytes of one layer's (t, t) matrices: weights, and with dropout a mask and their product.

    None where the kernel does not store them ("flash"), or they are computed again ("selective", "full").

    Source: Korthikanti et al. 2022, section 4.1: 5 a s² b bytes (https://arxiv.org/abs/2205.05198); Dao et
        al. 2022 for kernels without them (https://arxiv.org/abs/2205.14135).
    """
    if attention == "flash" or checkpointing != "none":
        return 0.0
    entries = tokens * seq_len * n_heads / tp_size
    if has_dropout:
        return entries * (2 * activation_bytes + 1)
    return entries * activation_bytes


def statistic_bytes(
    tokens: float, num_norms: int, n_heads: int, norm: str, attention: str, share: float, tp_size: int
) -> float:
    """Return the bytes of the float32 numbers a token that norms and fused attention keep for one layer.

    A layer norm keeps mean and 1 / deviation, an RMS norm one number. Fused attention keeps the logarithm of
    the softmax's denominator of each head. The papers leave these out.
    """
    of_norms = 4
    if norm == "layernorm":
        of_norms = 8
    total = num_norms * tokens * of_norms * share
    if attention == "flash":
        return total + tokens * n_heads * 4 / tp_size
    return total


def norm_output_copies(activation: str, activation_bytes: float, residual_bytes: float, kv_rank: int) -> int:
    """Return how many copies of the norms' outputs one layer keeps as inputs of its matrices.

    Two, one for q, k and v and one for the feed-forward layer. Under autocast the norms give wide numbers,
    and every matrix casts them for itself: q, k, v, up, and with swiglu gate. With latent attention one
    matrix makes what keys and values are made of.
    """
    if residual_bytes <= activation_bytes:
        return 2
    copies = 4
    if kv_rank > 0:
        copies = 3
    if activation == "swiglu":
        return copies + 1
    return copies


def inner_width(d_ff: int, activation: str) -> int:
    """Return how many numbers a token a feed-forward layer keeps inside.

    For gelu what goes in and what comes out, 2 d_ff; for swiglu four times d_ff: gate, silu(gate), up, and
    the product.
    """
    if activation == "swiglu":
        return 4 * d_ff
    return 2 * d_ff


def layer_activations(
    tokens: float,
    seq_len: int,
    d_model: int,
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
    has_dropout: bool,
    attention: str,
    checkpointing: str,
    activation_bytes: float,
    residual_bytes: float,
    tp_size: int,
    sequence_parallel: bool,
) -> dict[str, float]:
    """Return the bytes that one layer without experts keeps of a micro-batch, by kind of tensor.

    With s b tokens of width h, a heads, t tensor-parallel ranks, 2 bytes a number, gelu, dropout and stored
    scores, without the statistics, this is table 2 of the paper: s b h (34 + 5 a s / h) on one rank, s b h
    (10 + 24 / t + 5 a s / (h t)) with tensor parallelism, all of it over t with sequence parallelism, and
    34 s b h / t with selective recomputation.

    Rotary positions leave queries, and so what attention gives, in the order of heads: joining the heads is
    then a copy, and both are kept. Norms are the fused ones of an accelerator, which keep their input alone;
    on the CPU torch's RMS norm keeps two float32 numbers in its place.

    Latent attention keeps its heads as they are multiplied, each with a key of its own, and each latent
    before and after its norm; these are not divided by tensor parallelism, but by sequence parallelism.

    Where:
        tokens: s b of the micro-batch on this rank; with context parallelism its part of them.
        seq_len: s, keys that a query can see.
        checkpointing: "selective" computes the scores again; for "full" see `stage_activations`.
        activation_bytes: a number that a matrix product reads or writes.
        residual_bytes: a number of the residual stream, which the norms read.
        sequence_parallel: the inputs of the matrices are kept divided and gathered again, as in the paper.
    Source: Korthikanti et al. 2022, section 4 (https://arxiv.org/abs/2205.05198).
    """
    share = stream_share(tp_size, sequence_parallel)
    widths = attention_widths(d_model, n_heads, n_kv_heads, kv_rank, nope_dim, rope_dim, v_dim)
    heads = widths["queries"] + widths["keys"] + widths["values"]
    latents = q_rank + kv_rank
    num_norms = 2
    if q_rank > 0:
        num_norms = num_norms + 1
    if kv_rank > 0:
        num_norms = num_norms + 1
    masks = 0.0
    if has_dropout:
        masks = 2 * tokens * d_model * share
    copies = norm_output_copies(activation, activation_bytes, residual_bytes, kv_rank)
    outputs = 1
    if position == "rope":
        outputs = 2
    return {
        "norm_inputs": tokens * (2 * d_model + latents) * residual_bytes * share,
        "linear_inputs": tokens * (copies * d_model + latents) * activation_bytes * share,
        "queries_keys_values": tokens * heads * activation_bytes / tp_size,
        "scores": score_bytes(
            tokens, seq_len, n_heads, has_dropout, attention, checkpointing, activation_bytes, tp_size
        ),
        "attention_outputs": outputs * tokens * widths["outputs"] * activation_bytes / tp_size,
        "feed_forward_inner": tokens * inner_width(d_ff, activation) * activation_bytes / tp_size,
        "dropout_masks": masks,
        "statistics": statistic_bytes(tokens, num_norms, n_heads, norm, attention, share, tp_size),
    }


def expert_activations(
    tokens: float,
    d_model: int,
    expert_d_ff: int,
    n_shared_experts: int,
    activation: str,
    activation_bytes: float,
    n_experts: int,
    top_k: int,
    tp_size: int,
) -> dict[str, float]:
    """Return the bytes that experts keep of a micro-batch, in the place of one layer's `feed_forward_inner`.

    Each token is copied to the queues of k experts, and what they give is kept until the gates have weighed
    it: 2 k d numbers a token. Routing is taken to be even: where it is not, queues as long as the longest are
    kept, and more is needed. The gates and the places in the queues, a few numbers a choice, are left out.

    Where:
        n_experts: E; the router's logits and probabilities are float32, whatever the rest is.
        n_shared_experts: that every token uses, without a queue.
        top_k: k.
    """
    inner = inner_width(expert_d_ff, activation)
    return {
        "expert_queues": 2 * tokens * top_k * d_model * activation_bytes,
        "expert_inner": tokens * top_k * inner * activation_bytes / tp_size,
        "shared_inner": tokens * n_shared_experts * inner * activation_bytes / tp_size,
        "routing": tokens * 2 * n_experts * 4,
    }


def end_activations(
    tokens: float,
    seq_len: int,
    d_model: int,
    rotary_dim: int,
    norm: str,
    position: str,
    has_dropout: bool,
    activation_bytes: float,
    residual_bytes: float,
    tp_size: int,
    sequence_parallel: bool,
    is_first: bool,
    is_last: bool,
) -> dict[str, float]:
    """Return the bytes kept of a micro-batch outside the layers, without the logits.

    On the first stage token ids of 8 bytes, with learned positions theirs, and the embedding's dropout mask;
    on the last what goes into the final norm and into the head, and labels of 8 bytes. Rotary angles, once
    for all layers.

    Where:
        rotary_dim: numbers of a head that are turned.
    """
    share = stream_share(tp_size, sequence_parallel)
    first = 0.0
    if is_first:
        first = 8 * tokens
        if has_dropout:
            first = first + tokens * d_model * share
        if position == "learned":
            first = first + 8 * seq_len
    last = 0.0
    if is_last:
        last = tokens * d_model * (residual_bytes + activation_bytes) * share + 8 * tokens
        last = last + statistic_bytes(tokens, 1, 0, norm, "none", share, tp_size)
    angles = 0.0
    if position == "rope":
        angles = 4 * seq_len * rotary_dim
    return {"embeddings": first, "final_norm_and_head": last, "rotary_angles": angles}


def logit_bytes(tokens: float, vocabulary_rows: int) -> float:
    """Return the bytes of the float32 log-probabilities that the loss keeps, of one micro-batch.

    Source: Korthikanti et al. 2022, section 4.3 (https://arxiv.org/abs/2205.05198).
    """
    return 4 * tokens * vocabulary_rows


def checkpointed_input_bytes(
    tokens: float, d_model: int, residual_bytes: float, tp_size: int, sequence_parallel: bool
) -> float:
    """Return the bytes of a layer's input, which is all that full checkpointing keeps of it.

    Source: Chen et al. 2016 (https://arxiv.org/abs/1604.06174); Korthikanti et al. 2022, table 2: 2 s b h.
    """
    return tokens * d_model * residual_bytes * stream_share(tp_size, sequence_parallel)
