"""How long an optimizer step takes: matrix products, a pipeline's bubble, and the network."""

from __future__ import annotations

from coursekit.formulas.communication import communication_on_rank
from coursekit.formulas.flops import forward_flops, recomputed_flops
from coursekit.formulas.parameters import expert_layers_on_stage, expert_parameters, layers_on_stage
from coursekit.formulas.pipeline import bubble_over_ideal
from coursekit.formulas.total import total


def ranks_in_node(stride: int, size: int, devices_per_node: int) -> int:
    """Return how many ranks of one group of an axis lie in the same node.

    Where:
        stride: the distance between neighbours of the axis, the product of the sizes of the axes inside it.
        size: of the axis.
        devices_per_node: ranks of a node, numbered one after the other.
    """
    if devices_per_node % (stride * size) == 0:
        return size
    if devices_per_node % stride == 0 and (stride * size) % devices_per_node == 0:
        return devices_per_node // stride
    return 1


def axis_bandwidth(
    stride: int,
    size: int,
    devices_per_node: int,
    intra_bytes_per_second: float,
    inter_bytes_per_second: float,
) -> float:
    """Return with how many bytes a second each rank of an axis sends around its ring.

    Inside a node that of the node's links. A ring over several nodes is as fast as the network adapters that
    its ranks in one node have together, one a device, and never faster than the links inside.

    Where:
        stride: as for `ranks_in_node`.
        size: of the axis.
        devices_per_node: as for `ranks_in_node`.
        intra_bytes_per_second: of one device to the others of its node, in one direction.
        inter_bytes_per_second: of one device's network adapter, in one direction.
    Source: NVIDIA/nccl-tests, doc/PERFORMANCE.md, for what a ring sends.
    """
    together = ranks_in_node(stride, size, devices_per_node)
    if together == size:
        return intra_bytes_per_second
    return min(intra_bytes_per_second, together * inter_bytes_per_second)


def data_latency(
    zero_stage: int,
    layers: int,
    num_micro_batches: int,
    stride: int,
    size: int,
    devices_per_node: int,
    hop_seconds: float,
) -> float:
    """Return the seconds that data-parallel rings spend on going from node to node, whatever they carry.

    A ring passes its nodes one after the other. ZeRO-2 scatters each layer's gradients in each micro-batch,
    ZeRO-3 gathers each layer twice as well. Below, a step has few large rings, and theirs is left out.

    Where:
        layers: on the rank.
        stride: as for `ranks_in_node`, and so are the next two.
        hop_seconds: from one node to the next.
    """
    nodes = size / ranks_in_node(stride, size, devices_per_node)
    rings = 0
    if zero_stage == 2:
        rings = 1
    elif zero_stage == 3:
        rings = 3
    if nodes <= 1:
        return 0.0
    return rings * layers * num_micro_batches * nodes * hop_seconds


def message_bandwidth(
    stride: int,
    size: int,
    devices_per_node: int,
    intra_bytes_per_second: float,
    inter_bytes_per_second: float,
) -> float:
    """Return with how many bytes a second a rank of an axis sends to another one, rather than around a ring.

    Where the axis leaves the node some messages do, and these go through the one adapter of their device.

    Where:
        stride: as for `axis_bandwidth`, and so are the others.
    """
    if ranks_in_node(stride, size, devices_per_node) == size:
        return intra_bytes_per_second
    return min(intra_bytes_per_second, inter_bytes_per_second)


def share_of_stage(
    of_layers: float, of_head: float, layers: int, n_layers: int, tp_size: int, cp_size: int, is_last: bool
) -> float:
    """Return one rank's part of a quantity of the whole model: its stage's layers, and on the last the head.

    Layers are taken to be alike; of a model with some dense layers and some with experts, in the mean.

    Where:
        of_layers: of all layers together.
        layers: of the stage.
    """
    whole = of_layers * layers / n_layers
    if is_last:
        whole = whole + of_head
    return whole / (tp_size * cp_size)


def hidden_seconds(seconds: float, backward_seconds: float, num_micro_batches: int, zero_stage: int) -> float:
    """Return how much of the data-parallel axis's time can pass behind computing.

    Gradients are reduced while the backward pass still works on earlier layers: that of the last micro-batch
    with ZeRO 0 and 1, which synchronise once a step, that of all with 2 and 3, which do so in each.

    Where:
        seconds: what the axis needs in all.
        backward_seconds: of all micro-batches of a step.
        num_micro_batches: m.
        zero_stage: 0 to 3.
    Source: Li et al. 2020, PyTorch Distributed, section 3.2.3 (https://arxiv.org/abs/2006.15704).
    """
    if zero_stage < 2:
        return min(seconds, backward_seconds / num_micro_batches)
    return min(seconds, backward_seconds)


def expert_weight_seconds(
    num_weights: float,
    weight_bytes: float,
    gradient_bytes: float,
    expert_flops: float,
    checkpointing: str,
    per_second: float,
    memory_bytes_per_second: float,
) -> float:
    """Return how much longer experts take because each sees few tokens, for one micro-batch.

    Matrix products of few rows wait for the weights, not for the arithmetic: a forward pass reads them, a
    backward pass reads them again and adds to their gradients, which are read and written. With m rows an
    expert a forward pass does m operations a byte of its weights in 16 bits, and an H100 does 295 in the time
    in which its memory gives one. Expert parallelism brings the tokens of ep ranks together, and so mends it.

    Where:
        num_weights: of all experts on the rank.
        weight_bytes: a weight.
        gradient_bytes: a gradient, as it is summed over micro-batches.
        expert_flops: forward and backward pass of the rank's tokens.
        per_second: operations that large matrix products reach.
        memory_bytes_per_second: of the device.
    Source: Williams et al. 2009, roofline (https://doi.org/10.1145/1498765.1498785).
    """
    reads = 2
    if checkpointing == "full":
        reads = 3
    moved = num_weights * (reads * weight_bytes + 2 * gradient_bytes)
    return max(0.0, moved / memory_bytes_per_second - (reads + 1) / 3 * expert_flops / per_second)


def step_parts(
    compute_seconds: float,
    recompute_seconds: float,
    reading_seconds: float,
    tensor_seconds: float,
    context_seconds: float,
    expert_seconds: float,
    pipeline_seconds: float,
    data_seconds: float,
    pp_size: int,
    num_micro_batches: int,
    stages_per_rank: int,
    zero_stage: int,
) -> dict[str, float]:
    """Return the seconds of an optimizer step by what is waited for; they add up to the step.

    Tensor, context and expert parallelism stand in the way of the next matrix product, so all their time
    counts; of the data-parallel axis what does not pass behind the backward pass. A pipeline's bubble is a
    share of all that a rank does for its micro-batches. Left out: the optimizer's own arithmetic, loading
    data, most latencies, stragglers.

    Where:
        compute_seconds: forward and backward, all micro-batches of a step on the busiest stage.
        recompute_seconds: what checkpointing does again.
        reading_seconds: of reading experts' weights, as far as no arithmetic hides it.
        tensor_seconds: on the network, and so the four after it.
        context_seconds: of gathering keys and values.
        expert_seconds: of tokens on their way to experts and back.
        pipeline_seconds: of what goes to the neighbouring stages.
        data_seconds: of gradients, and with ZeRO of parameters.
        pp_size: p.
        num_micro_batches: m.
        stages_per_rank: v.
        zero_stage: 0 to 3.
    """
    busy = compute_seconds + recompute_seconds + tensor_seconds + context_seconds + expert_seconds
    busy = busy + pipeline_seconds + reading_seconds
    backward = 2 / 3 * compute_seconds + recompute_seconds
    return {
        "compute": compute_seconds,
        "recompute": recompute_seconds,
        "expert_weights": reading_seconds,
        "tensor": tensor_seconds,
        "context": context_seconds,
        "expert": expert_seconds,
        "pipeline": pipeline_seconds,
        "bubble": busy * bubble_over_ideal(pp_size, num_micro_batches, stages_per_rank),
        "data": data_seconds - hidden_seconds(data_seconds, backward, num_micro_batches, zero_stage),
    }


def step_on_rank(
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
    peak_flops_per_second: float,
    memory_bytes_per_second: float,
    efficiency: float,
    devices_per_node: int,
    intra_bytes_per_second: float,
    inter_bytes_per_second: float,
    hop_seconds: float,
) -> dict[str, float]:
    """Return the seconds of an optimizer step on a rank of one pipeline stage, by what is waited for.

    Ranks are numbered as in `coursekit.parallel.make_mesh`: tensor parallelism innermost, then experts, parts
    of a sequence, copies, and stages outermost; a node holds `devices_per_node` consecutive ones.

    Where:
        peak_flops_per_second: of a device, dense.
        memory_bytes_per_second: between its memory and its arithmetic.
        efficiency: share of it that computing reaches while nothing waits for the network.
        intra_bytes_per_second: of a device to its node, one direction; inter, to other nodes.
        hop_seconds: latency from a node to the next.
    """
    sent = communication_on_rank(
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
        top_k,
        dp_size,
        tp_size,
        pp_size,
        cp_size,
        ep_size,
        zero_stage,
        sequence_parallel,
        micro_batch_size,
        grad_accum_steps,
        checkpointing,
        stages_per_rank,
        weight_bytes_sent,
        gradient_bytes_sent,
        activation_bytes,
        seq_len,
        stage,
    )
    forward = forward_flops(
        vocab_size,
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
        activation,
        n_experts,
        experts_every,
        expert_d_ff,
        n_shared_experts,
        first_dense_layers,
        top_k,
        seq_len,
    )
    in_layers = total(forward) - forward["head"]
    again = recomputed_flops(in_layers, forward["attention_scores"], checkpointing)
    layers = layers_on_stage(n_layers, pp_size, stage)
    sparse = expert_layers_on_stage(n_layers, pp_size, stage, n_experts, experts_every, first_dense_layers)
    expert_weights = sparse * expert_parameters(
        d_model, expert_d_ff, activation, False, n_experts, ep_size, tp_size
    )
    is_last = stage == pp_size - 1
    tokens = grad_accum_steps * micro_batch_size * seq_len
    per_second = peak_flops_per_second * efficiency
    model = share_of_stage(3 * in_layers, 3 * forward["head"], layers, n_layers, tp_size, cp_size, is_last)
    second = share_of_stage(again, 0, layers, n_layers, tp_size, cp_size, is_last)
    expert_flops = 0.0
    if sparse > 0:
        whole = expert_layers_on_stage(n_layers, 1, 0, n_experts, experts_every, first_dense_layers)
        of_rank = forward["experts"] * sparse / whole / (tp_size * cp_size)
        expert_flops = 3 * micro_batch_size * seq_len * of_rank
    inside_context = tp_size * ep_size
    inside_pipeline = inside_context * cp_size * dp_size
    copies = ep_size * cp_size * dp_size
    node = devices_per_node
    intra = intra_bytes_per_second
    inter = inter_bytes_per_second
    data = sent["data_all_reduce"] + sent["data_reduce_scatter"] + sent["data_all_gather"]
    return step_parts(
        tokens * model / per_second,
        tokens * second / per_second,
        grad_accum_steps
        * expert_weight_seconds(
            expert_weights,
            activation_bytes,
            gradient_bytes_sent,
            expert_flops,
            checkpointing,
            per_second,
            memory_bytes_per_second,
        ),
        sent["tensor"] / axis_bandwidth(1, tp_size, node, intra, inter),
        sent["context"] / axis_bandwidth(inside_context, cp_size, node, intra, inter),
        sent["expert"] / message_bandwidth(tp_size, ep_size, node, intra, inter),
        sent["pipeline"] / message_bandwidth(inside_pipeline, pp_size, node, intra, inter),
        data / axis_bandwidth(tp_size, copies, node, intra, inter)
        + data_latency(zero_stage, layers, grad_accum_steps, tp_size, copies, node, hop_seconds),
        pp_size,
        grad_accum_steps,
        stages_per_rank,
        zero_stage,
    )
