"""Bytes that a rank sends, with ring algorithms, in the mean over the ranks of a ring."""

from __future__ import annotations

from coursekit.formulas.attention import attention_widths
from coursekit.formulas.parameters import (
    expert_layers_on_stage,
    layers_on_stage,
    parameters_on_rank,
    parameters_outside_layers,
)
from coursekit.formulas.total import total


def ring_all_reduce(payload_bytes: float, num_ranks: int) -> float:
    """Return 2 (N - 1) / N of the payload: a reduce-scatter, then an all-gather.

    Source: Patarasuk and Yuan 2009 (https://doi.org/10.1016/j.jpdc.2008.09.002).
    """
    return 2 * ring_pass(payload_bytes, num_ranks)


def ring_pass(payload_bytes: float, num_ranks: int) -> float:
    """Return (N - 1) / N of the payload: all-gather, reduce-scatter, all-to-all, broadcast, reduce.

    Where:
        payload_bytes: the whole tensor, N parts together.
    """
    return (num_ranks - 1) / num_ranks * payload_bytes


def zero_bytes_sent(param_bytes: float, gradient_bytes: float, zero_stage: int, num_ranks: int) -> float:
    """Return the bytes of a step of one micro-batch with ZeRO: 2 (N - 1) / N Ψ, for stage 3 3 (N - 1) / N Ψ.

    Where:
        param_bytes: Ψ in bytes, all parameters in the dtype that travels.
        gradient_bytes: all gradients.
    Source: Rajbhandari et al. 2020, section 7 (https://arxiv.org/abs/1910.02054).
    """
    if zero_stage == 0:
        return ring_all_reduce(gradient_bytes, num_ranks)
    if zero_stage == 3:
        return 2 * ring_pass(param_bytes, num_ranks) + ring_pass(gradient_bytes, num_ranks)
    return ring_pass(param_bytes, num_ranks) + ring_pass(gradient_bytes, num_ranks)


def communication_seconds(
    num_bytes: float, bandwidth_bytes_per_second: float, latency_seconds: float, num_calls: float
) -> float:
    """Return calls · latency + bytes / bandwidth, the α-β model.

    Source: Hockney 1994 (https://doi.org/10.1016/S0167-8191(06)80021-9).
    """
    return num_calls * latency_seconds + num_bytes / bandwidth_bytes_per_second


def data_parallel_bytes(
    params_outside_layers: float,
    params_in_layers: float,
    param_bytes: float,
    gradient_bytes: float,
    zero_stage: int,
    num_ranks: int,
    num_micro_batches: int,
) -> dict[str, float]:
    """Return the bytes of the data-parallel axis in an optimizer step, by operation.

    Stages 0 and 1 synchronise once a step; stages 2 and 3 scatter each micro-batch's gradients, or they could
    not keep a part alone. Stage 3 gathers layers for the forward and again for the backward pass, what is
    outside of them once, as FSDP does.

    Where:
        params_outside_layers: number of embeddings, final norm and head on this rank.
        params_in_layers: number in the layers.
        param_bytes: a parameter, as it travels.
        gradient_bytes: a gradient, as it travels.
        num_micro_batches: forward and backward passes of a step.
    Source: Rajbhandari et al. 2020, section 7 (https://arxiv.org/abs/1910.02054).
    """
    params = params_outside_layers + params_in_layers
    all_reduce = 0.0
    reduce_scatter = 0.0
    all_gather = 0.0
    if zero_stage == 0:
        all_reduce = ring_all_reduce(params * gradient_bytes, num_ranks)
    elif zero_stage == 1:
        reduce_scatter = ring_pass(params * gradient_bytes, num_ranks)
        all_gather = ring_pass(params * param_bytes, num_ranks)
    elif zero_stage == 2:
        reduce_scatter = num_micro_batches * ring_pass(params * gradient_bytes, num_ranks)
        all_gather = ring_pass(params * param_bytes, num_ranks)
    else:
        gathered = params_outside_layers + 2 * params_in_layers
        reduce_scatter = num_micro_batches * ring_pass(params * gradient_bytes, num_ranks)
        all_gather = num_micro_batches * ring_pass(gathered * param_bytes, num_ranks)
    return {
        "all_reduce": all_reduce,
        "reduce_scatter": reduce_scatter,
        "all_gather": all_gather,
    }


def tensor_parallel_bytes(
    hidden_bytes: float,
    num_layers: int,
    is_first: bool,
    is_last: bool,
    tp_size: int,
    sequence_parallel: bool,
    gathers_again: bool,
    checkpointing: str,
) -> float:
    """Return the bytes of the tensor-parallel axis for one micro-batch.

    Four all-reduces of the hidden states a layer, two forward and two backward; one of the embedding's
    output, one of the gradient of the head's input. With sequence parallelism each is a reduce-scatter and an
    all-gather, of as many bytes together. Full checkpointing does the forward ones again.

    Where:
        hidden_bytes: b · t · d numbers of one micro-batch.
        gathers_again: whether, with sequence parallelism, the backward pass gathers the inputs of the
            matrices a second time and need not keep them: two all-gathers a layer and one for the head.
    Source: Shoeybi et al. 2019, section 3 (https://arxiv.org/abs/1909.08053); Korthikanti et al. 2022,
        section 4.2.2 (https://arxiv.org/abs/2205.05198).
    """
    reductions = 4 * num_layers
    if checkpointing == "full":
        reductions = 6 * num_layers
    gathers = 0
    if is_first:
        reductions = reductions + 1
    if is_last:
        reductions = reductions + 1
    if sequence_parallel and gathers_again:
        gathers = 2 * num_layers
        if is_last:
            gathers = gathers + 1
    return reductions * ring_all_reduce(hidden_bytes, tp_size) + gathers * ring_pass(hidden_bytes, tp_size)


def loss_parallel_bytes(tokens: float, tp_size: int, is_last: bool) -> float:
    """Return the bytes of a loss over divided logits: float32 maximum, sum and the label's logit a token.

    Source: Shoeybi et al. 2019, section 3 (https://arxiv.org/abs/1909.08053).
    """
    if not is_last:
        return 0.0
    return 3 * ring_all_reduce(4 * tokens, tp_size)


def pipeline_bytes(
    hidden_bytes: float, num_micro_batches: int, stages_per_rank: int, is_first: bool, is_last: bool
) -> float:
    """Return the bytes that a pipeline rank sends to its neighbours in a step.

    Activations to the next stage, gradients to the one before: 2 v messages a micro-batch. The first rank's
    first stage sends no gradient, the last rank's last no activations.

    Where:
        hidden_bytes: of one message.
        stages_per_rank: v.
    Source: Narayanan et al. 2021, section 3.2 (https://arxiv.org/abs/2104.04473).
    """
    messages = 2 * stages_per_rank
    if is_first:
        messages = messages - 1
    if is_last:
        messages = messages - 1
    return messages * num_micro_batches * hidden_bytes


def context_parallel_bytes(
    key_value_bytes: float, num_layers: int, cp_size: int, checkpointing: str
) -> float:
    """Return the bytes of gathering keys and values over the parts of a sequence, for one micro-batch.

    An all-gather forward, a reduce-scatter of their gradients backward.

    Where:
        key_value_bytes: keys and values of one layer and one micro-batch, of the whole sequence.
    Source: Grattafiori et al. 2024, section 3.3.2 (https://arxiv.org/abs/2407.21783).
    """
    passes = 2
    if checkpointing == "full":
        passes = 3
    return num_layers * passes * ring_pass(key_value_bytes, cp_size)


def expert_parallel_bytes(
    queue_bytes: float, num_expert_layers: int, ep_size: int, checkpointing: str
) -> float:
    """Return the bytes of sending tokens to their experts and back, for one micro-batch.

    Two all-to-alls forward, two backward. Routing is taken to be even, and a token travels once for each
    of its k experts, even where two of them are on one rank.

    Where:
        queue_bytes: b · t · k · d numbers: each token once for each of its k experts. With sequence
            parallelism a rank sends the tokens of its part alone.
    Source: Lepikhin et al. 2020, GShard (https://arxiv.org/abs/2006.16668).
    """
    passes = 4
    if checkpointing == "full":
        passes = 6
    return num_expert_layers * passes * ring_pass(queue_bytes, ep_size)


def expert_tensor_bytes(
    hidden_bytes: float, num_expert_layers: int, top_k: int, tp_size: int, ep_size: int, checkpointing: str
) -> float:
    """Return what experts that are divided by tensor *and* expert parallelism send beyond a dense layer.

    With sequence parallelism each tp rank sends the tokens of its part to their experts, where the tp ranks
    gather them and scatter the sums again: k rows a token in the place of one. With ep 1 the tokens are
    gathered once, before they are chosen from, as in a dense layer.

    Where:
        hidden_bytes: b · t · d numbers of one micro-batch.
    Source: NVIDIA/Megatron-LM, `MoEAlltoAllTokenDispatcher` in megatron/core/transformer/moe.
    """
    if ep_size == 1:
        return 0.0
    reductions = 2
    if checkpointing == "full":
        reductions = 3
    rows = num_expert_layers * (top_k - 1) * hidden_bytes
    return reductions * ring_all_reduce(rows, tp_size) + ring_pass(rows, tp_size)


def data_parallel_bytes_on_rank(
    params: dict[str, float],
    weight_bytes_sent: float,
    gradient_bytes_sent: float,
    zero_stage: int,
    copies: int,
    ep_size: int,
    grad_accum_steps: int,
) -> dict[str, float]:
    """Return the bytes that a rank sends for its gradients and gathered weights in a step, by operation.

    Where:
        params: of the rank, as `parameters_on_rank` gives them.
        copies: ranks that hold the same experts; all other parameters are on `copies * ep_size`.
    """
    outside = parameters_outside_layers(params)
    dense = data_parallel_bytes(
        outside,
        total(params) - outside - params["experts"],
        weight_bytes_sent,
        gradient_bytes_sent,
        zero_stage,
        copies * ep_size,
        grad_accum_steps,
    )
    experts = data_parallel_bytes(
        0, params["experts"], weight_bytes_sent, gradient_bytes_sent, zero_stage, copies, grad_accum_steps
    )
    return {
        "all_reduce": dense["all_reduce"] + experts["all_reduce"],
        "reduce_scatter": dense["reduce_scatter"] + experts["reduce_scatter"],
        "all_gather": dense["all_gather"] + experts["all_gather"],
    }


def communication_on_rank(
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
    stages_per_rank: int,
    weight_bytes_sent: float,
    gradient_bytes_sent: float,
    activation_bytes: float,
    seq_len: int,
    stage: int,
) -> dict[str, float]:
    """Return the bytes that a rank of one pipeline stage sends in an optimizer step, by axis and operation.

    With latent attention, context parallelism sends the keys and values of all heads, as ring attention
    does, and tensor parallelism is taken to send what it does without: an upper estimate, since with sequence
    parallelism the latents could be gathered in the place of the hidden states.

    Where:
        weight_bytes_sent: a parameter that is gathered.
        gradient_bytes_sent: a gradient that is reduced.
        grad_accum_steps: micro-batches of a step, those of the pipeline.
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
    layers = layers_on_stage(n_layers, pp_size, stage)
    sparse = expert_layers_on_stage(n_layers, pp_size, stage, n_experts, experts_every, first_dense_layers)
    is_first = stage == 0
    is_last = stage == pp_size - 1
    tokens = micro_batch_size * seq_len / cp_size
    hidden = tokens * d_model * activation_bytes
    message = hidden
    if sequence_parallel:
        message = hidden / tp_size
    data = data_parallel_bytes_on_rank(
        params,
        weight_bytes_sent,
        gradient_bytes_sent,
        zero_stage,
        dp_size * cp_size,
        ep_size,
        grad_accum_steps,
    )
    tensor = tensor_parallel_bytes(
        hidden, layers, is_first, is_last, tp_size, sequence_parallel, True, checkpointing
    )
    if sequence_parallel:
        tensor = tensor + expert_tensor_bytes(hidden, sparse, top_k, tp_size, ep_size, checkpointing)
    widths = attention_widths(d_model, n_heads, n_kv_heads, kv_rank, nope_dim, rope_dim, v_dim)
    keys_values = tokens * cp_size * (widths["keys"] + widths["values"]) * activation_bytes / tp_size
    context = context_parallel_bytes(keys_values, layers, cp_size, checkpointing)
    expert = expert_parallel_bytes(top_k * message, sparse, ep_size, checkpointing)
    between_stages = 0.0
    if pp_size > 1:
        between_stages = pipeline_bytes(message, grad_accum_steps, stages_per_rank, is_first, is_last)
    return {
        "data_all_reduce": data["all_reduce"],
        "data_reduce_scatter": data["reduce_scatter"],
        "data_all_gather": data["all_gather"],
        "tensor": grad_accum_steps * (tensor + loss_parallel_bytes(tokens, tp_size, is_last)),
        "context": grad_accum_steps * context,
        "expert": grad_accum_steps * expert,
        "pipeline": between_stages,
    }
