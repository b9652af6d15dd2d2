"""Bytes that are stored: the corpus, the checkpoints and how often to write them, the key-value cache."""

from __future__ import annotations

from typing import Any

from coursekit.errors import InputError
from coursekit.formulas import attention
from coursekit.formulas import budget as formulas
from coursekit.plan.calling import call
from coursekit.plan.layout import scalars
from coursekit.plan.recipes import PrecisionRecipe, as_recipe


def corpus_bytes(num_tokens: float, *, bytes_per_token: float = 4) -> float:
    """Return the size of a corpus.

    Args:
        num_tokens: of the corpus.
        bytes_per_token: about 4 for English text in UTF-8; as token ids 2 for up to 65,536 of them, else 4.

    >>> corpus_bytes(15e12, bytes_per_token=4) / 1e12  # Llama 3, in terabytes
    60.0
    """
    return formulas.data_bytes(num_tokens, bytes_per_token)


def checkpoint_bytes(num_params: float, *, recipe: str | PrecisionRecipe = "mixed_16") -> float:
    """Return the size of a checkpoint from which a run resumes exactly: weights and optimizer state.

    The weights are the master weights where the recipe has them, since the others are their rounding;
    gradients are not kept. Weights alone, to use the model, are 2 bytes a parameter in 16 bits.

    Args:
        num_params: of the model.
        recipe: name or `PrecisionRecipe`.

    >>> checkpoint_bytes(405e9) / 1e12  # terabytes
    4.86
    """
    chosen = as_recipe(recipe)
    weight_bytes = chosen.master_bytes or min(4, chosen.param_bytes)
    return formulas.checkpoint_bytes(num_params, weight_bytes, chosen.moment_bytes)


def seconds_between_checkpoints(*, checkpoint_seconds: float, seconds_between_failures: float) -> float:
    """Return the interval between checkpoints that loses least time: √(2 δ M).

    Args:
        checkpoint_seconds: δ, for which one keeps the training waiting.
        seconds_between_failures: M, of the whole job; of n machines it is that of one machine over n.
    Raises: InputError for times that are not positive.
    Source: Young 1974 (https://doi.org/10.1145/361147.361115).

    >>> seconds_between_checkpoints(checkpoint_seconds=10, seconds_between_failures=3 * 3600) / 60
    7.745966692414834
    """
    _check_times(checkpoint_seconds, seconds_between_failures)
    return formulas.seconds_between_checkpoints(checkpoint_seconds, seconds_between_failures)


def lost_share(
    interval_seconds: float, *, checkpoint_seconds: float, seconds_between_failures: float
) -> float:
    """Return the share of time that writing checkpoints and doing lost work again take, to first order.

    Args:
        interval_seconds: τ between two checkpoints, short beside the time between failures.
        checkpoint_seconds: δ.
        seconds_between_failures: M.
    Raises: InputError for times that are not positive.
    Source: Young 1974 (https://doi.org/10.1145/361147.361115).

    >>> round(lost_share(464.8, checkpoint_seconds=10, seconds_between_failures=3 * 3600), 3)
    0.043
    """
    _check_times(interval_seconds, checkpoint_seconds, seconds_between_failures)
    return formulas.lost_share(interval_seconds, checkpoint_seconds, seconds_between_failures)


def _check_times(*seconds: float) -> None:
    for value in seconds:
        if not value > 0:
            raise InputError("wrong time", expected="more than 0 seconds", got=value)


def cache_bytes_per_token(shape: Any, *, cached_bytes: float = 2) -> float:
    """Return the bytes of the key-value cache for each token that a model has read or written.

    Args:
        shape: a `coursekit.models.GPTConfig`, a `LatentConfig`, or an object with their attributes.
        cached_bytes: of a number; the default is 16 bits.
    Source: DeepSeek-AI 2024, DeepSeek-V2, table 1 (https://arxiv.org/abs/2405.04434).

    >>> from coursekit.models import preset
    >>> cache_bytes_per_token(preset("llama3-405b")) / 1000  # kilobytes
    516.096
    """
    return call(attention.cache_bytes_per_token, scalars(shape), cached_bytes=cached_bytes)
