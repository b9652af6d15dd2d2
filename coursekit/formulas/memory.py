"""Bytes that one rank needs while it trains, all parts at once."""

from __future__ import annotations

from coursekit.formulas.activations import (
    checkpointed_input_bytes,
    end_activations,
    expert_activations,
    layer_activations,
    logit_bytes,
)
from coursekit.formulas.attention import attention_widths
from coursekit.formulas.parameters import (
    expert_layers_on_stage,
    layers_on_stage,
    parameters_on_rank,
    parameters_outside_layers,
    vocabulary_rows,
)
from coursekit.formulas.pipeline import micro_batches_stored
from coursekit.formulas.state import gathered_bytes, state_bytes
from coursekit.formulas.total import total


def activations_on_rank(
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
    has_dropout: bool,
    n_experts: int,
    experts_every: int,
    expert_d_ff: int,
    n_shared_experts: int,
    first_dense_layers: int,
    top_k: int,
    cp_size: int,
    tp_size: int,
    pp_size: int,
    sequence_parallel: bool,
    micro_batch_size: int,
    grad_accum_steps: int,
    checkpointing: str,
    attention: str,
    schedule: str,
    stages_per_rank: int,
    activation_bytes: float,
    residual_bytes: float,
    seq_len: int,
    stage: int,
) -> dict[str, float]:
    """Return the bytes of activations on a rank at their most, by kind, without the logits.

    Layers times the micro-batches that the pipeline's schedule stores. With full checkpointing the inputs of
    the layers, and for a moment, when the logits are gone, the activations of the one layer that is computed
    again.

    Where:
        cp_size: parts of a sequence; the others are axes as in `coursekit.plan.Layout`.
        stage: of the pipeline.
    Source: Korthikanti et al. 2022, sections 4 and 5 (https://arxiv.org/abs/2205.05198).
    """
    tokens = micro_batch_size * seq_len / cp_size
    layers = layers_on_stage(n_layers, pp_size, stage)
    sparse = expert_layers_on_stage(n_layers, pp_size, stage, n_experts, experts_every, first_dense_layers)
    stored = micro_batches_stored(schedule, pp_size, stage, grad_accum_steps, stages_per_rank)
    recomputed = checkpointing
    if checkpointing == "full":
        recomputed = "none"
    one = layer_activations(
        tokens,
        seq_len,
        d_model,
        n_heads,
        n_kv_heads,
        q_rank,
        kv_rank,
        nope_dim,
        rope_dim,
        v_dim,
        d_ff,
        norm,
        activation,
        position,
        has_dropout,
        attention,
        recomputed,
        activation_bytes,
        residual_bytes,
        tp_size,
        sequence_parallel,
    )
    experts = expert_activations(
        tokens,
        d_model,
        expert_d_ff,
        n_shared_experts,
        activation,
        activation_bytes,
        n_experts,
        top_k,
        tp_size,
    )
    widths = attention_widths(d_model, n_heads, n_kv_heads, kv_rank, nope_dim, rope_dim, v_dim)
    ends = end_activations(
        tokens,
        seq_len / cp_size,
        d_model,
        widths["rotary"],
        norm,
        position,
        has_dropout,
        activation_bytes,
        residual_bytes,
        tp_size,
        sequence_parallel,
        stage == 0,
        stage == pp_size - 1,
    )
    inputs = 0.0
    again = 0.0
    times = layers * stored
    sparse_times = sparse * stored
    if checkpointing == "full":
        inputs = times * checkpointed_input_bytes(tokens, d_model, residual_bytes, tp_size, sequence_parallel)
        again = total(one)
        if sparse > 0:
            again = max(again, again - one["feed_forward_inner"] + total(experts))
        times = 0
        sparse_times = 0
    return {
        "norm_inputs": times * one["norm_inputs"],
        "linear_inputs": times * one["linear_inputs"],
        "queries_keys_values": times * one["queries_keys_values"],
        "scores": times * one["scores"],
        "attention_outputs": times * one["attention_outputs"],
        "feed_forward_inner": (times - sparse_times) * one["feed_forward_inner"],
        "experts": sparse_times * total(experts),
        "dropout_masks": times * one["dropout_masks"],
        "statistics": times * one["statistics"],
        "layer_inputs": inputs,
        "recomputed_layer": again,
        "outside_layers": stored * total(ends),
    }


def fresh_gradient_bytes(head_bytes: float, kept_bytes: float, is_last: bool, is_tied: bool) -> float:
    """Return what the head's gradient needs beyond `kept_bytes`, before it is added to the one that is there.

    It is as large as the head. Where the head is the embedding too, three such tensors meet at the end of the
    backward pass, when activations and logits are gone: one gradient of each, and their sum. For many
    tokens the logits need more; for few, this decides.
    """
    if not is_last:
        return 0.0
    if is_tied:
        return max(head_bytes, 3 * head_bytes - kept_bytes)
    return head_bytes


def memory_on_rank(
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
    has_dropout: bool,
    n_experts: int,
    experts_every: int,
    expert_d_ff: int,
    n_shared_experts: int,
    first_dense_layers: int,
    top_k: int,
    dp_size: int,
    tp_size: int,
    pp_size: int,
    cp_size: int,
    ep_size: int,
    zero_stage: int,
    sequence_parallel: bool,
    micro_batch_size: int,
    grad_accum_steps: int,
    checkpointing: str,
    attention: str,
    schedule: str,
    stages_per_rank: int,
    param_bytes: float,
    gradient_bytes: float,
    optimizer_bytes: float,
    activation_bytes: float,
    residual_bytes: float,
    seq_len: int,
    stage: int,
) -> dict[str, float]:
    """Return the bytes of a rank of one pipeline stage by part, as if all parts were at their most at once.

    They are where gradients stay from one micro-batch to the next: the worst moment is then the start of a
    backward pass, when the loss's gradient needs two more tensors of the logits' size. With full
    checkpointing it may be later, when a layer is computed again and the logits are gone. ZeRO shards over
    dp, cp and ep ranks together, experts over dp and cp.

    Where:
        optimizer_bytes: a parameter: moments and master weights.
        gradient_bytes: a parameter, all copies together.
    """
    params = parameters_on_rank(
        vocab_size,
        max_seq_len,
        d_model,
        n_layers,
        n_heads,
        n_kv_heads,
        q_rank,
        kv_rank,
        nope_dim,
        rope_dim,
        v_dim,
        d_ff,
        norm,
        activation,
        position,
        bias,
        tie_embeddings,
        n_experts,
        experts_every,
        expert_d_ff,
        n_shared_experts,
        first_dense_layers,
        ep_size,
        tp_size,
        pp_size,
        stage,
    )
    acts = activations_on_rank(
        d_model,
        n_layers,
        n_heads,
        n_kv_heads,
        q_rank,
        kv_rank,
        nope_dim,
        rope_dim,
        v_dim,
        d_ff,
        norm,
        activation,
        position,
        has_dropout,
        n_experts,
        experts_every,
        expert_d_ff,
        n_shared_experts,
        first_dense_layers,
        top_k,
        cp_size,
        tp_size,
        pp_size,
        sequence_parallel,
        micro_batch_size,
        grad_accum_steps,
        checkpointing,
        attention,
        schedule,
        stages_per_rank,
        activation_bytes,
        residual_bytes,
        seq_len,
        stage,
    )
    logits = 0.0
    if stage == pp_size - 1:
        logits = logit_bytes(micro_batch_size * seq_len / cp_size, vocabulary_rows(vocab_size, tp_size))
    again = acts["recomputed_layer"]
    kept = total(acts) - again
    fresh = fresh_gradient_bytes(
        vocabulary_rows(vocab_size, tp_size) * d_model * min(4, param_bytes),
        kept + logits,
        stage == pp_size - 1,
        tie_embeddings and pp_size == 1,
    )
    copies = dp_size * cp_size
    sparse = params["experts"]
    outside = parameters_outside_layers(params)
    dense_state = state_bytes(
        total(params) - sparse, param_bytes, gradient_bytes, optimizer_bytes, zero_stage, copies * ep_size
    )
    expert_state = state_bytes(sparse, param_bytes, gradient_bytes, optimizer_bytes, zero_stage, copies)
    gathered = gathered_bytes(
        outside,
        total(params) - outside,
        layers_on_stage(n_layers, pp_size, stage),
        param_bytes,
        gradient_bytes,
        zero_stage,
        copies * ep_size,
    )
    return {
        "parameters": dense_state["parameters"] + expert_state["parameters"],
        "gradients": dense_state["gradients"] + expert_state["gradients"],
        "optimizer_states": dense_state["optimizer"] + expert_state["optimizer"],
        "activations": kept,
        "logits": logits,
        "buffers": gathered + max(2 * logits, again - logits, fresh),
    }
