"""What has to divide, so that a model can be laid out."""

from __future__ import annotations


def undivided(
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    d_ff: int,
    seq_len: int,
    tp_size: int,
    pp_size: int,
    cp_size: int,
    stages_per_rank: int,
    sequence_parallel: bool,
) -> str:
    """Return the name of the first number that the ranks cannot share evenly, or "" if there is none.

    Layers are no such number, as long as every stage has one: see `layers_on_stage`.
    """
    if pp_size * stages_per_rank > n_layers:
        return "n_layers"
    if n_heads % tp_size != 0:
        return "n_heads"
    if n_kv_heads % tp_size != 0:
        return "n_kv_heads"
    if d_ff % tp_size != 0:
        return "d_ff"
    if seq_len % cp_size != 0:
        return "seq_len"
    if sequence_parallel and seq_len // cp_size % tp_size != 0:
        return "seq_len"
    return ""
