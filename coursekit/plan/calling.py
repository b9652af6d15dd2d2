"""Calls of formulas by what they need, out of everything that is known."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def call(formula: Callable[..., Any], known: Mapping[str, Any], **more: Any) -> Any:
    """Return `formula` of those of the known values that are its arguments."""
    values = {**known, **more}
    return formula(**{name: values[name] for name in inspect.signature(formula).parameters})
