"""What the sizes of the axes multiply to: devices, and sequences of a step."""

from __future__ import annotations


def world_size(dp_size: int, tp_size: int, pp_size: int, cp_size: int, ep_size: int) -> int:
    """Return the devices: the product of the five axes."""
    return dp_size * tp_size * pp_size * cp_size * ep_size


def global_batch_size(dp_size: int, ep_size: int, micro_batch_size: int, grad_accum_steps: int) -> int:
    """Return the sequences of an optimizer step; ranks of the expert axis have sequences of their own."""
    return micro_batch_size * grad_accum_steps * dp_size * ep_size
