"""Operations, and the time, money and energy that they take."""

from __future__ import annotations

from typing import Any, get_args

from coursekit.errors import InputError, check_whole
from coursekit.formulas import budget as formulas
from coursekit.formulas import flops, scaling_laws
from coursekit.plan.breakdown import Breakdown
from coursekit.plan.calling import call
from coursekit.plan.layout import Checkpointing, ExpertLayers, Layout, scalars


def flops_per_token(
    shape: Any,
    *,
    seq_len: int | None = None,
    experts: ExpertLayers | None = None,
    checkpointing: str = "none",
) -> Breakdown:
    """Return the operations of forward and backward pass a token: three times those of the forward pass.

    The matrix products, which `torch.utils.flop_counter` counts as well. For MFU leave `checkpointing` at
    "none": what is computed a second time is work, but not the model's; with it the answer is what the
    hardware does (HFU).

    Args:
        shape: a `coursekit.models.GPTConfig`, or an object with its attributes.
        seq_len: None leaves the attention scores out.
        experts: in the place of feed-forward layers; a token uses top_k of them.
        checkpointing: "full" adds the forward pass of the layers once more, "selective" that of the scores.
    Returns: attention_projections, attention_scores (full squares, causal or not), feed_forward, head; with
        experts also experts and routers; with checkpointing also recomputed.
    Raises: InputError for another checkpointing, or a sequence without tokens.
    Source: Chowdhery et al. 2022, appendix B (https://arxiv.org/abs/2204.02311).

    >>> from coursekit.models import preset
    >>> round(flops_per_token(preset("llama3-405b"), seq_len=8192).total / 1e12, 2)
    2.63
    """
    if checkpointing not in get_args(Checkpointing):
        expected = " or ".join(map(repr, get_args(Checkpointing)))
        raise InputError("unknown checkpointing", expected=expected, got=repr(checkpointing))
    if seq_len is not None and (type(seq_len) is not int or seq_len < 1):
        check_whole("no sequence", seq_len=seq_len)
    known = scalars(shape, Layout(), experts)
    forward = call(flops.forward_flops, known, seq_len=seq_len or 0)
    again = flops.recomputed_flops(
        sum(forward.values()) - forward["head"], forward["attention_scores"], checkpointing
    )
    parts = {name: 3 * value for name, value in forward.items()}
    if experts is None:
        del parts["experts"], parts["routers"]
    if checkpointing != "none":
        parts["recomputed"] = again
    return Breakdown(parts, unit="FLOPs")


def training_flops(num_params: float, num_tokens: float) -> float:
    """Return 6 N D, the operations of a training run.

    Args:
        num_params: N; of a mixture of experts those that a token uses.
        num_tokens: D.
    Source: Kaplan et al. 2020, section 2.1 (https://arxiv.org/abs/2001.08361).

    >>> training_flops(175e9, 300e9)
    3.15e+23
    """
    return flops.training_flops(num_params, num_tokens)


def pf_days(num_flops: float) -> float:
    """Return operations in petaflop/s-days, as GPT-3's paper counts them: 10^15 a second for a day.

    >>> round(pf_days(3.14e23))
    3634
    """
    return formulas.pf_days(num_flops)


def training_seconds(
    num_flops: float, *, num_devices: int, peak_flops_per_second: float, mfu: float
) -> float:
    """Return how long a run of so many operations takes.

    Args:
        num_flops: the model's own, such as `training_flops`.
        num_devices: that work at once.
        peak_flops_per_second: of one, dense, at the dtype of the matrix products.
        mfu: which part of it the model's operations reach, from 0 to 1; published runs reach 0.2 to 0.5.
    Raises: InputError for a utilization outside (0, 1], or no devices.

    >>> round(training_seconds(6.3e24, num_devices=8960, peak_flops_per_second=4.59e14, mfu=0.4) / 86400)
    44
    """
    if not 0 < mfu <= 1:
        raise InputError("wrong mfu", expected="more than 0, at most 1", got=mfu)
    _check_positive(num_devices=num_devices, peak_flops_per_second=peak_flops_per_second)
    return formulas.training_seconds(num_flops, num_devices, peak_flops_per_second, mfu)


def mfu(
    tokens_per_second: float, *, flops_per_token: float, num_devices: int, peak_flops_per_second: float
) -> float:
    """Return model FLOPs utilization, from 0 to 1.

    Args:
        tokens_per_second: of all devices together.
        flops_per_token: of the model, forward and backward, nothing recomputed.
        num_devices: that worked on them.
        peak_flops_per_second: of one device, dense.
    Raises: InputError if there is no peak to compare with.
    Source: Chowdhery et al. 2022, appendix B (https://arxiv.org/abs/2204.02311).

    >>> palm = 6 * 540.35e9
    >>> round(mfu(238.3e3, flops_per_token=palm, num_devices=6144, peak_flops_per_second=275e12), 3)
    0.457
    """
    _check_positive(num_devices=num_devices, peak_flops_per_second=peak_flops_per_second)
    return formulas.mfu(tokens_per_second, flops_per_token, num_devices * peak_flops_per_second)


def compute_optimal_tokens(num_params: float) -> float:
    """Return the tokens with which a model of that size makes the most of its compute: about 20 a parameter.

    More tokens than that are no waste: Llama 3 8B saw 1,900 a parameter, since who uses a model pays for its
    size every time.

    Source: Hoffmann et al. 2022, table 3, approach 1 (https://arxiv.org/abs/2203.15556).

    >>> round(compute_optimal_tokens(70e9) / 1e12, 2)
    1.46
    """
    _check_positive(num_params=num_params)
    return scaling_laws.compute_optimal_tokens(num_params)


def parametric_loss(num_params: float, num_tokens: float) -> float:
    """Return the loss in nats a token that Chinchilla's fit expects: E + A / N^α + B / D^β.

    Of its data and tokenizer: useful for comparing, not as a forecast of another run's loss.

    Source: Hoffmann et al. 2022, equation 10 (https://arxiv.org/abs/2203.15556).

    >>> parametric_loss(70e9, 1.4e12) < parametric_loss(280e9, 300e9)  # Chinchilla and Gopher
    True
    """
    _check_positive(num_params=num_params, num_tokens=num_tokens)
    return scaling_laws.parametric_loss(num_params, num_tokens)


def device_hours(seconds: float, *, num_devices: int) -> float:
    """Return devices times hours.

    >>> device_hours(3600, num_devices=8)
    8.0
    """
    return formulas.device_hours(seconds, num_devices)


def cost(device_hours: float, *, price_per_device_hour: float) -> float:
    """Return what the devices cost, in the currency of the price.

    >>> cost(1000, price_per_device_hour=2.5)
    2500.0
    """
    return formulas.run_cost(device_hours, price_per_device_hour)


def energy(device_hours: float, *, watts_per_device: float, pue: float = 1.1) -> float:
    """Return the energy in kWh.

    Args:
        device_hours: devices times hours.
        watts_per_device: mean power of a device and its part of the host.
        pue: energy of the building over energy of the machines.
    Source: Patterson et al. 2021 (https://arxiv.org/abs/2104.10350), whose table 4 has GPT-3: 10,000 V100
        at 330 W for 14.8 days, 1,287 MWh.

    >>> round(energy(10_000 * 14.8 * 24, watts_per_device=330) / 1000)
    1289
    """
    return formulas.energy_kwh(device_hours, watts_per_device, pue)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"wrong {name}", expected="more than 0", got=value)
