"""What has to divide, so that a model can be laid out."""

from __future__ import annotations


def undivided(
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    d_ff: int,
    n_experts: int,
    expert_d_ff: int,
    seq_len: int,
    tp_size: int,
    pp_size: int,
    cp_size: int,
    ep_size: int,
    schedule: str,
    stages_per_rank: int,
    grad_accum_steps: int,
    sequence_parallel: bool,
) -> str:
    """Return the name of the first number that the ranks cannot share evenly, or "" if there is none.

    Layers are no such number, as long as every stage has one: see `layers_on_stage`. An interleaved schedule
    takes micro-batches in groups of as many as there are pipeline ranks, which torch demands as well, and
    Megatron-Core unless it is told to make the groups larger.

    Source: Narayanan et al. 2021, section 2.2.2 (https://arxiv.org/abs/2104.04473); NVIDIA/Megatron-LM,
        `forward_backward_pipelining_with_interleaving` in megatron/core/pipeline_parallel/schedules.py.
    """
    if pp_size * stages_per_rank > n_layers:
        return "n_layers"
    if schedule == "interleaved" and grad_accum_steps % pp_size != 0:
        return "grad_accum_steps"
    if n_experts == 0 and ep_size > 1:
        return "ep_size"
    if n_heads % tp_size != 0:
        return "n_heads"
    if n_kv_heads % tp_size != 0:
        return "n_kv_heads"
    if d_ff % tp_size != 0:
        return "d_ff"
    if n_experts > 0 and expert_d_ff % tp_size != 0:
        return "expert_d_ff"
    if n_experts % ep_size != 0:
        return "n_experts"
    if seq_len % cp_size != 0:
        return "seq_len"
    if sequence_parallel and seq_len // cp_size % tp_size != 0:
        return "seq_len"
    return ""
