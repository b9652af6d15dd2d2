"""Calls of formulas by what they need, out of everything that is known."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def call(formula: Callable[..., Any], known: Mapping[str, Any], **more: Any) -> Any:
    """Return `formula` of those of the known values that are its arguments."""
    values = {**known, **more}
    return formula(**{name: values[name] for name in _arguments(formula)})


@functools.cache  # a ranking asks a hundred thousand times
def _arguments(formula: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(formula).parameters)
