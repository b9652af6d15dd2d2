"""Bytes of what a rank keeps between steps: parameters, gradients, optimizer state."""

from __future__ import annotations


def kept_share(zero_stage: int, sharded_from: int, shard_size: int) -> float:
    """Return the share of a kind of state that a rank keeps: all, or one part of `shard_size`.

    Where:
        zero_stage: of ZeRO, 0 to 3.
        sharded_from: the stage from which that kind is sharded: 1 optimizer state, 2 gradients, 3 parameters.
        shard_size: ranks that share one copy.
    """
    if zero_stage >= sharded_from:
        return 1 / shard_size
    return 1.0


def state_bytes(
    num_params: float,
    param_bytes: float,
    gradient_bytes: float,
    optimizer_bytes: float,
    zero_stage: int,
    shard_size: int,
) -> dict[str, float]:
    """Return the bytes of state of `num_params` parameters, sharded over `shard_size` ranks.

    Where:
        num_params: Ψ, those that would be on the rank without ZeRO.
        param_bytes: a parameter, and so the two others.
        optimizer_bytes: K: moments and master weights.
        zero_stage: 0 to 3.

    Source: Rajbhandari et al. 2020, section 5 and figure 1 (https://arxiv.org/abs/1910.02054).
    """
    return {
        "parameters": num_params * param_bytes * kept_share(zero_stage, 3, shard_size),
        "gradients": num_params * gradient_bytes * kept_share(zero_stage, 2, shard_size),
        "optimizer": num_params * optimizer_bytes * kept_share(zero_stage, 1, shard_size),
    }


def gathered_bytes(
    params_outside_layers: float,
    params_in_layers: float,
    num_layers: int,
    param_bytes: float,
    gradient_bytes: float,
    zero_stage: int,
    shard_size: int,
) -> float:
    """Return the bytes of whole parameters and gradients that a rank with ZeRO-3 holds for a while.

    Two layers' parameters (one in use, the next on its way) and one layer's gradient, before it is
    scattered; and both of what is outside the layers, which is gathered once. None below stage 3, or alone.

    Where:
        params_outside_layers: embeddings, final norm and head of this stage.
        params_in_layers: of all `num_layers` layers of this stage together.
    Source: Zhao et al. 2023, PyTorch FSDP, sections 3.2.1 and 3.3.2 (https://arxiv.org/abs/2304.11277).
    """
    if zero_stage < 3 or shard_size == 1:
        return 0.0
    one_layer = params_in_layers / max(1, num_layers)
    both = param_bytes + gradient_bytes
    return params_outside_layers * both + one_layer * (both + param_bytes)
