"""Time, utilization, money, energy and storage of a training run."""

from __future__ import annotations

import math


def mfu(tokens_per_second: float, flops_per_token: float, peak_flops_per_second: float) -> float:
    """Return which part of the arithmetic the model's own operations fill, from 0 to 1.

    Source: Chowdhery et al. 2022, appendix B (https://arxiv.org/abs/2204.02311).
    """
    return tokens_per_second * flops_per_token / peak_flops_per_second


def training_seconds(
    flops: float, num_devices: int, peak_flops_per_second: float, utilization: float
) -> float:
    """Return how long `flops` operations take on devices that reach `utilization` of their peak.

    Where:
        flops: the model's own, without what checkpointing computes again.
        peak_flops_per_second: of one device, dense.
        utilization: MFU, above 0, at most 1.
    Source: Chowdhery et al. 2022, appendix B (https://arxiv.org/abs/2204.02311), solved for the time.
    """
    return flops / (num_devices * peak_flops_per_second * utilization)


def device_hours(seconds: float, num_devices: int) -> float:
    """Return devices times hours."""
    return seconds * num_devices / 3600


def run_cost(device_hours_used: float, price_per_device_hour: float) -> float:
    """Return what the devices cost, in the currency of the price."""
    return device_hours_used * price_per_device_hour


def energy_kwh(device_hours_used: float, watts_per_device: float, pue: float) -> float:
    """Return the energy in kWh, the building's share included.

    Where:
        watts_per_device: mean power of a device with its part of the host.
        pue: power usage effectiveness, energy of the building over energy of the machines: 1.1 is good.
    Source: Patterson et al. 2021 (https://arxiv.org/abs/2104.10350).
    """
    return device_hours_used * watts_per_device * pue / 1000


def pf_days(flops: float) -> float:
    """Return operations in petaflop/s-days: 10^15 a second for a day, 8.64e19."""
    return flops / (1e15 * 86400)


def data_bytes(num_tokens: float, bytes_per_token: float) -> float:
    """Return the bytes of a corpus: about 4 a token as English text, 2 or 4 as token ids."""
    return num_tokens * bytes_per_token


def checkpoint_bytes(num_params: float, weight_bytes: float, moment_bytes: float) -> float:
    """Return the bytes of a checkpoint that a run resumes from: weights and the optimizer's moments.

    Gradients are not in it, nor a second copy of the weights where there are master weights.
    """
    return num_params * (weight_bytes + moment_bytes)


def seconds_between_checkpoints(checkpoint_seconds: float, seconds_between_failures: float) -> float:
    """Return the interval that loses least: √(2 δ M), δ to write one, M the mean time between failures.

    Source: Young 1974 (https://doi.org/10.1145/361147.361115).
    """
    return math.sqrt(2 * checkpoint_seconds * seconds_between_failures)


def lost_share(interval_seconds: float, checkpoint_seconds: float, seconds_between_failures: float) -> float:
    """Return the share of time lost to writing checkpoints and to work done again: δ / τ + τ / (2 M).

    To first order, for intervals τ that are short beside the time between failures M.

    Source: Young 1974 (https://doi.org/10.1145/361147.361115).
    """
    return checkpoint_seconds / interval_seconds + interval_seconds / (2 * seconds_between_failures)
