"""What a checkpoint may hold: tensors and plain values, which load without running code from the file."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from coursekit.errors import InputError

from .seed import get_rng_state, set_rng_state

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)
_MAPPINGS = (dict, collections.OrderedDict, collections.Counter)


class Stateful(Protocol):
    """Anything with `state_dict` and `load_state_dict`: model, optimizer, schedule, scaler, sampler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take the state that `state_dict` returned."""


def get_states(parts: Mapping[str, Stateful | None]) -> dict[str, Any]:
    """Return the `state_dict()` of each part by name, without the parts that are None.

    Raises: InputError for a part without state, or one whose state would not load again.
    """
    states = {name: part.state_dict() for name, part in given_parts(parts).items()}
    for name, state in states.items():
        check_plain(state, name)
    return states


def set_states(parts: Mapping[str, Stateful | None], states: Mapping[str, Any]) -> None:
    """Give each part its state back.

    Raises: InputError if the parts are not those that were saved: a run that resumes without its optimizer
        goes on as if nothing had happened, and ends elsewhere.
    """
    given = given_parts(parts)
    check_same_parts(given, states)
    for name, part in given.items():
        part.load_state_dict(states[name])


def check_same_parts(given: Iterable[str], saved: Iterable[str]) -> None:
    """Raise InputError unless the names of the parts are those that were saved."""
    if set(given) != set(saved):
        raise InputError(
            "the checkpoint holds other parts",
            expected=", ".join(sorted(saved)) or "none",
            got=", ".join(sorted(given)) or "none",
            fix="name the same parts when saving and loading",
        )


def given_parts(parts: Mapping[str, Stateful | None]) -> dict[str, Stateful]:
    """Return the parts that are not None, each of which has a state."""
    given = {name: part for name, part in parts.items() if part is not None}
    for name, part in given.items():
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise InputError(
                f"{name} has no state to save",
                expected="an object with state_dict and load_state_dict",
                got=type(part).__name__,
                fix="plain values go into extra={...}",
            )
    return given


def check_plain(value: Any, where: str) -> None:
    """Raise InputError if `value` holds anything that `torch.load(weights_only=True)` would refuse.

    Found when it is saved; found when the run resumes, it would be too late.
    """
    kind = type(value)
    if kind in _MAPPINGS:
        for key, inner in value.items():
            check_plain(key, f"a key of {where}")
            check_plain(inner, f"{where}[{key!r}]")
    elif kind in (list, tuple, set):
        for position, inner in enumerate(value):
            check_plain(inner, f"{where}[{position}]")
    elif isinstance(value, Tensor) and value.is_meta:
        fix = "give it memory with to_empty(device=...), and weights"
        raise InputError(f"{where} has no data to save", got="a tensor on the meta device", fix=fix)
    elif kind not in (*_PLAIN, Tensor, nn.Parameter):
        raise InputError(
            f"{where} cannot be saved",
            expected="tensors and plain Python values",
            got=f"{kind.__module__}.{kind.__qualname__}",
            fix="shards go into save_sharded, as its model and optimizer"
            if kind.__name__ == "DTensor"
            else "convert it, e.g. with float() or dict()",
        )


def pack_rng_state() -> dict[str, Any]:
    """Return `get_rng_state()` with NumPy's array as a list, which loads without NumPy's own unpickling."""
    state = get_rng_state()
    if "numpy" in state:
        name, keys, *rest = state["numpy"]
        state["numpy"] = (name, keys.tolist(), *rest)
    return state


def unpack_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to what `pack_rng_state` returned, and warn of those that are not here."""
    state = dict(state)
    absent = {
        "cuda": len(state.get("cuda", ())) > torch.cuda.device_count(),
        "mps": not torch.backends.mps.is_available(),
    }
    for device in [name for name, is_absent in absent.items() if is_absent and name in state]:
        warnings.warn(f"the random state of {device} is not restored: its devices are not here", stacklevel=3)
        del state[device]
    set_rng_state(state)
