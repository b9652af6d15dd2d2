"""Loss scaling: gradients too small for float16 are made larger by a scale, and divided by it afterwards.

Dynamic: the scale falls when a gradient overflows, that step is left out, and it rises after a while of
steps without. Static: the scale stays, and steps that overflow are left out all the same.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from coursekit.errors import InputError, check_whole

_OUT_OF_RANGE = "a loss scaler's setting is out of range"


def next_loss_scale(
    scale: float,
    num_good: int,
    *,
    overflowed: bool,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
) -> tuple[float, int]:
    """Return the loss scale of the next step, and how many steps in a row then were good.

    The rule of `torch.amp.GradScaler`, to read: an overflow multiplies the scale by `backoff_factor`, and
    `growth_interval` steps in a row without one multiply it by `growth_factor`.

    Args:
        scale: of the step that just ended.
        num_good: steps without overflow since the scale last changed, before this one.
        overflowed: whether a gradient of this step was infinite or NaN.
        growth_factor: above 1.
        backoff_factor: below 1.
        growth_interval: steps.
    Source: Micikevicius et al. 2018, section 3.2 (https://arxiv.org/abs/1710.03740) for the scale; NVIDIA's
        mixed-precision guide for the rule.

    >>> next_loss_scale(1024.0, 5, overflowed=True)
    (512.0, 0)
    >>> next_loss_scale(1024.0, 1, overflowed=False, growth_interval=2)
    (2048.0, 0)
    """
    if overflowed:
        return scale * backoff_factor, 0
    if num_good + 1 < growth_interval:
        return scale, num_good + 1
    grown = scale * growth_factor
    # In float32 as torch keeps it: a scale that has grown to infinity would make every later step overflow.
    return (grown if grown <= torch.finfo(torch.float32).max else scale), 0


class LossScaler(torch.amp.GradScaler):
    """Scales the loss for float16, leaves out steps that overflow, and says how many those were.

    It is torch's `GradScaler`, used as that is, with two things added: a static scale, and counts of
    skipped steps with a warning when they follow each other. The loop, with accumulation and clipping:

        accumulate_gradients(..., backward=lambda loss: scaler.scale(loss).backward())
        scaler.unscale_(optimizer)  # before clipping: a norm of scaled gradients is `scale` times too large
        clip_grad_norm_(model.parameters(), max_grad_norm)
        scaler.step(optimizer)
        scaler.update()

    Skips at the start are normal: a dynamic scale starts too high and finds its value by overflowing. One in
    some hundred steps later is normal too.

    Args:
        device: where the losses are, as a name or `torch.device`; a CPU works.
        init_scale: the first scale, or the only one. Powers of two change no digit of a gradient.
        dynamic: False keeps the scale.
        growth_factor, backoff_factor, growth_interval: see `next_loss_scale`.
        warn_after: steps skipped in a row that call for a warning. It is looked at every `warn_after`
            updates, since looking makes the host wait for the device.
        enabled: False makes every method do nothing, `step` apart, so that the same loop runs in bfloat16
            and float32: `enabled=compute_dtype == torch.float16`.
    Raises: InputError for a device that is not there, or numbers out of range.
    Source: Micikevicius et al. 2018, section 3.2 (https://arxiv.org/abs/1710.03740).
    """

    def __init__(
        self,
        device: str | torch.device,
        *,
        init_scale: float = 2.0**16,
        dynamic: bool = True,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        warn_after: int = 10,
        enabled: bool = True,
    ) -> None:
        device_type = torch.device(device).type
        if enabled and device_type == "cuda" and not torch.cuda.is_available():
            raise InputError("there is no GPU to scale losses on", expected="cpu", got=device)  # torch warns
        check_rule(init_scale, growth_factor, backoff_factor, growth_interval)
        check_whole(_OUT_OF_RANGE, warn_after=warn_after)
        super().__init__(
            device_type, float(init_scale), growth_factor, backoff_factor, growth_interval, enabled
        )
        self.dynamic, self._warn_after, self._num_updates = dynamic, warn_after, 0
        # On the device of the scale, so that counting waits for nothing.
        self._skipped = torch.zeros((), dtype=torch.int64)
        self._in_a_row = torch.zeros((), dtype=torch.int64)

    @property
    def num_skipped(self) -> int:
        """Steps left out so far. Reading it waits for the device."""
        return int(self._skipped)

    @property
    def num_skipped_in_a_row(self) -> int:
        """Steps left out since the last one that was taken. Reading it waits for the device."""
        return int(self._in_a_row)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Count the step, and adapt the scale if it is dynamic; once a step, after `step`."""
        if not self._enabled:
            return
        found = [x for s in self._per_optimizer_states.values() for x in s["found_inf_per_device"].values()]
        if not found:
            raise InputError("no step to update after", fix="call scaler.step(optimizer) before update()")
        self._count(sum((x.to(found[0].device, non_blocking=True) for x in found[1:]), found[0]) > 0)
        # Torch's scaler has no static scale; one that is set to itself after each step is static.
        super().update(self._scale if new_scale is None and not self.dynamic else new_scale)

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state of a scaler and the counts, for a checkpoint; empty if not enabled."""
        if not self._enabled:
            return {}
        counts = {"num_skipped": self.num_skipped, "num_skipped_in_a_row": self.num_skipped_in_a_row}
        return {**super().state_dict(), **counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state of this class, or of torch's `GradScaler`, whose steps count as taken."""
        super().load_state_dict(state_dict)
        self._skipped.fill_(state_dict.get("num_skipped", 0))
        self._in_a_row.fill_(state_dict.get("num_skipped_in_a_row", 0))

    def _count(self, overflowed: Tensor) -> None:
        self._skipped = self._skipped.to(overflowed.device).add_(overflowed)
        self._in_a_row = self._in_a_row.to(overflowed.device).add_(1).mul_(overflowed)
        self._num_updates += 1
        if self._num_updates % self._warn_after == 0 and self.num_skipped_in_a_row >= self._warn_after:
            warnings.warn(
                f"{self.num_skipped_in_a_row} steps in a row were skipped because gradients overflowed, "
                f"{self.num_skipped} in all; the loss scale is {self.get_scale():g}. {self._advice()}",
                stacklevel=3,
            )

    def _advice(self) -> str:
        if not self.dynamic:
            return "Lower the static scale, or make it dynamic."
        return "If the loss itself is finite, wait for the scale to fall; if not, look for what made it so."


def check_rule(init_scale: float, growth_factor: float, backoff_factor: float, growth_interval: int) -> None:
    """Raise InputError for settings with which no scale would find its value; see `LossScaler`."""
    for expected, holds, got in (
        ("a finite init_scale above 0", 0 < init_scale < math.inf, init_scale),
        ("a finite growth_factor above 1", 1 < growth_factor < math.inf, growth_factor),
        ("backoff_factor between 0 and 1", 0 < backoff_factor < 1, backoff_factor),
    ):
        if not holds:
            raise InputError(_OUT_OF_RANGE, expected=expected, got=got)
    check_whole(_OUT_OF_RANGE, growth_interval=growth_interval)
