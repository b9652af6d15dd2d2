"""Recognises a sick run by its figures: NaN, spike, plateau, a loss that stays at guessing.

Each detector sees one step after the other, costs about a microsecond, and keeps little. What the
parameters themselves show (dead units, missing gradients) is in `diagnose_model`.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping

from coursekit.errors import check_whole
from coursekit.train.findings import Detector, Finding


def find_faults(losses: Iterable[float], *detectors: Detector) -> list[Finding]:
    """Return what the detectors find in a recorded series of losses, in order of the steps.

    Args:
        losses: one a step, from step 0 on.
        detectors: fresh ones; by default those of `default_detectors`.

    >>> [finding.fault for finding in find_faults([2.0, 1.9, float("nan"), float("nan")])]
    ['not finite']
    """
    chosen = detectors or default_detectors()
    found = [d.update(step, {"loss": loss}) for step, loss in enumerate(losses) for d in chosen]
    return [finding for finding in found if finding is not None]


def default_detectors(*, num_classes: int | None = None) -> tuple[Detector, ...]:
    """Return fresh detectors with their default limits, as `Monitor` uses them.

    Args:
        num_classes: as for `NoProgressDetector`; a language model's `vocab_size`.
    """
    return NonFiniteDetector(), SpikeDetector(), PlateauDetector(), NoProgressDetector(num_classes)


class NonFiniteDetector:
    """Finds the first step at which any figure is NaN or infinite; again only after all were finite.

    A gradient norm that is infinite under a finite loss points to the backward pass, a loss to the forward.
    """

    def __init__(self) -> None:
        self._is_finite = True

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """Take one step's figures."""
        was_finite, self._is_finite = self._is_finite, all(map(math.isfinite, values.values()))
        if self._is_finite or not was_finite:
            return None
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        cause, advice = _why_not_finite(step, bad)
        seen = " and ".join(f"{name} is {value}" for name, value in bad.items())
        return Finding("not finite", seen, cause, advice, step)


class SpikeDetector:
    """Finds a loss that stays far above what it was: `patience` steps in a row above

        median + max(factor · 1.4826 · MAD, rise · |median|)

    of the last `window` losses, where MAD is the median distance from the median (1.4826 of it is the
    standard deviation of a normal series). One high loss is a hard batch, and enters the window with the
    next usual one; a run of them is a spike, after which the window starts anew.

    Args:
        window: steps that the limit is taken from; nothing is found before half of them are there.
        patience: steps in a row above the limit.
        factor: in standard deviations.
        rise: as a part of the median.
    """

    def __init__(
        self, *, window: int = 50, patience: int = 3, factor: float = 6.0, rise: float = 0.25
    ) -> None:
        _check_positive(window=window, patience=patience)
        self._usual: deque[float] = deque(maxlen=window)
        self._high: list[float] = []
        self._window, self._patience, self._factor, self._rise = window, patience, factor, rise

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """Take the loss of one step; other figures are not looked at."""
        loss = values.get("loss", math.nan)
        if math.isnan(loss):
            return None
        if not self._is_high(loss):
            # What was high for a step or two was a hard batch: a part of what is usual.
            self._usual.extend((*self._high, loss))
            self._high.clear()
            return None
        self._high.append(loss)
        if len(self._high) < self._patience:
            return None
        usual, highest, first = statistics.median(self._usual), max(self._high), step - self._patience + 1
        self._usual.clear()
        self._high.clear()
        return Finding(
            "spike",
            f"the loss rose from {usual:.4g} to {highest:.4g} at step {first} and stayed up",
            "a learning rate too high for this stage, or batches unlike the others (damaged, badly ordered)",
            "look at the batches of those steps; go back to the checkpoint before them and skip them, or "
            "lower the learning rate, warm up longer, clip the gradient norm",
            step,
        )

    def _is_high(self, loss: float) -> bool:
        # The first test is cheap and ends most calls: a median a step would be seen on small models.
        if len(self._usual) < self._window // 2 or loss <= self._usual[-1] or loss <= max(self._usual):
            return False
        median = statistics.median(self._usual)
        spread = 1.4826 * statistics.median(abs(usual - median) for usual in self._usual)
        return loss > median + max(self._factor * spread, self._rise * abs(median))


class PlateauDetector:
    """Finds a loss that no longer falls: training as long again has bettered it by less than a small part,

        mean(before) − mean(now) + 2 · error < min_improvement · |mean(before)|

    where `now` are the steps from window · 2^k to window · 2^(k+1), `before` those of the block before
    them, and `error` is the standard error of the difference. Blocks that double suit losses that
    fall as a power of the steps; a fixed number of steps would call every late stage of a long run a plateau.
    Noise can hide an improvement: only one that is surely smaller than the limit counts as none.

    Args:
        window: length of the first block, in steps.
        min_improvement: part of the loss by which a block should better the one before it.
        target_loss: a mean below it is success, not a plateau.
    """

    def __init__(
        self, *, window: int = 200, min_improvement: float = 0.01, target_loss: float = -math.inf
    ) -> None:
        _check_positive(window=window - 1)
        self._window, self._min_improvement, self._target_loss = window, min_improvement, target_loss
        self._end, self._now, self._before = window, _Mean(), _Mean()

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """Take the loss of one step; other figures are not looked at."""
        finding = self._end_block(step) if step >= self._end else None
        if math.isfinite(loss := values.get("loss", math.nan)):
            self._now.add(loss)
        return finding

    def _end_block(self, step: int) -> Finding | None:
        before, now, length = self._before, self._now, self._end // 2
        self._before, self._now = now, _Mean()
        while self._end <= step:  # a resumed run starts far beyond the first block
            self._end *= 2
        # A block that a resumed run saw the end of alone is no measure.
        if min(before.count, now.count) < self._window // 2 or now.mean < self._target_loss:
            return None
        if not _surely_flat(before, now, self._min_improvement):
            return None
        return Finding(
            "plateau",
            f"{length} more steps took the mean loss from {before.mean:.4g} to {now.mean:.4g}",
            "the learning rate is by now too low, or too high to settle; or the model holds all that it can",
            "lower the learning rate if the loss jitters, raise it (or end the run) if it is smooth; "
            "compare with a held-out loss; then a larger model or more data",
            step,
        )


class NoProgressDetector:
    """Finds a run that never began to learn: after `window` steps the loss is where it was, or at guessing.

    Where it was: the mean over the last tenth of the window is, for sure (two standard errors), less than
    `min_improvement` below that of the first tenth. At guessing: it is as near as that to ln(num_classes),
    the loss of equal probabilities. A run not seen from its first steps (a resumed one) is not judged.

    Args:
        num_classes: classes of a cross-entropy in nats, such as `vocab_size`; None: compare with the start
            alone.
        window: steps before it judges; it judges once.
        min_improvement: as a part of the loss.
    """

    def __init__(
        self, num_classes: int | None = None, *, window: int = 200, min_improvement: float = 0.02
    ) -> None:
        _check_positive(window=window // 20, num_classes=2 if num_classes is None else num_classes - 1)
        self._guess = None if num_classes is None else math.log(num_classes)
        self._window, self._min_improvement = window, min_improvement
        self._first, self._last = _Mean(), _Mean()

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """Take the loss of one step; other figures are not looked at."""
        loss, tenth = values.get("loss", math.nan), self._window // 10
        if step < self._window and math.isfinite(loss):
            if step < tenth:
                self._first.add(loss)
            elif step >= self._window - tenth:
                self._last.add(loss)
        return self._judge(step) if step == self._window - 1 else None

    def _judge(self, step: int) -> Finding | None:
        first, last, limit = self._first, self._last, self._min_improvement
        if first.count < 2 or last.count < 2:
            return None
        if self._guess is not None and abs(last.mean - self._guess) <= limit * self._guess:
            seen = f"the loss {last.mean:.4g} is that of guessing, ln(classes) = {self._guess:.4g}"
        elif _surely_flat(first, last, limit):
            seen = f"the loss is {last.mean:.4g}; it began at {first.mean:.4g}"
        else:
            return None
        return Finding("no progress", f"after {self._window} steps {seen}", *_NO_PROGRESS, step)


class _Mean:
    """Mean of a series and the square of its standard error, without keeping the series (Welford)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        from_old = value - self.mean
        self.mean += from_old / self.count
        self._squares += from_old * (value - self.mean)

    @property
    def squared_error(self) -> float:
        return self._squares / (self.count - 1) / self.count


def _surely_flat(before: _Mean, now: _Mean, min_improvement: float) -> bool:
    error = math.sqrt(before.squared_error + now.squared_error)
    return before.mean - now.mean + 2 * error < min_improvement * abs(before.mean)


_NO_PROGRESS = (
    "the parameters do not move (learning rate near zero, an optimizer that holds others, a detached graph), "
    "or the labels have nothing to do with the inputs (shuffled apart, shifted by one)",
    "find_gradient_faults after backward and watch_updates around the step; fit a single batch until the "
    "loss is near zero; look at inputs and labels as the model gets them",
)


def _why_not_finite(step: int, bad: Mapping[str, float]) -> tuple[str, str]:
    if step == 0:
        return (
            "the data or the initial weights (a NaN in the inputs, a division by zero, log of zero)",
            "check the inputs with isfinite; then torch.autograd.set_detect_anomaly(True) for one step",
        )
    if "loss" not in bad:
        return (
            "an overflow in the backward pass (fp16 without loss scaling, the square root or norm of zero)",
            "loss scaling or bf16, an epsilon under the root; find_gradient_faults names the parameters",
        )
    return (
        "a learning rate too high, or an overflow (exp or fp16 above 65,504) in the forward pass",
        "go back to the last checkpoint; lower the learning rate, warm up longer, clip the gradient norm, or "
        "use bf16; torch.autograd.set_detect_anomaly(True) names the operation",
    )


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        check_whole(f"{name} is too small for a detector", **{name: count})
