"""Plain data: what may cross between a learner's code and the tests."""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from itertools import islice
from numbers import Integral, Real
from typing import Any

from coursekit.errors import CoursekitError

MAX_DEPTH = 16
MAX_ITEMS = 2_000_000
# What a learner may well return where a list is asked for; a test that goes through it sees no difference.
_LIKE_LISTS = (list, range, set, frozenset, deque, KeysView, ValuesView, ItemsView, Iterator)
_ATOMS = (type(None), bool, int, float, complex, str, bytes)


class NotPlainError(CoursekitError, TypeError):
    """A value holds something other than plain data.

    Args:
        where: path to the offending part, e.g. "result[0]['grads']".
        problem: what stands there and what to do instead.
    """

    def __init__(self, where: str, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"{where} is {problem}")


def check_plain(value: Any, where: str = "value", *, depth: int = MAX_DEPTH) -> None:
    """Return None if `value` is plain data.

    Plain are None, bool, int, float, complex, str, bytes; numpy numbers and arrays of numbers, bools or
    strings; dense, detached torch tensors; and lists, tuples and dicts of these, nested at most `depth`
    deep. Types are exact: a subclass could carry code of its own.

    >>> check_plain({"loss": 0.5, "grads": [[1.0, 2.0]]})
    >>> check_plain([1, {2, 3}], "out")
    Traceback (most recent call last):
        ...
    coursekit.notebooks.plain.NotPlainError: out[1] is a set; use numbers, text, lists, dicts, arrays, tensors

    Raises: NotPlainError that says where and what to do.
    """
    kind = type(value)
    if kind in _ATOMS:
        return
    if kind in (list, tuple, dict):
        if depth <= 0:
            raise NotPlainError(where, f"nested more than {MAX_DEPTH} deep (or contains itself)")
        _check_parts(value, where, depth - 1)
    elif is_tensor(value):
        _check_tensor(value, where)
    elif kind.__module__ == "numpy" and hasattr(value, "dtype"):
        _check_array(value, where)
    else:
        raise NotPlainError(where, _describe(value))


def as_plain(value: Any, where: str = "value") -> Any:
    """Return `value` as plain data, with what means the same in the place of what is not.

    Ranges, sets, views, iterators and subclasses of list become lists, named tuples and sizes of tensors
    tuples, every kind of mapping a dict, fractions and members of an IntEnum numbers; keys that are numbers
    or text of numpy's become Python's. What is plain already is returned itself.

    >>> as_plain({"rows": range(3)})
    {'rows': [0, 1, 2]}

    Raises: NotPlainError as `check_plain` does, for what is left.
    """
    try:
        check_plain(value, where)
    except NotPlainError:
        value = _remade(value, where, MAX_DEPTH)
        check_plain(value, where)
    return value


def is_tensor(value: Any) -> bool:
    """Return whether this is exactly a `torch.Tensor`, without importing torch."""
    return type(value).__name__ == "Tensor" and type(value).__module__ == "torch"


def _remade(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, (tuple, Mapping, *_LIKE_LISTS)):
        if depth <= 0:
            raise NotPlainError(where, f"nested more than {MAX_DEPTH} deep (or contains itself)")
        if isinstance(value, Mapping):
            return {_plain_key(key): _remade(part, where, depth - 1) for key, part in value.items()}
        if isinstance(value, Iterator):
            value = list(islice(value, MAX_ITEMS + 1))
            if len(value) > MAX_ITEMS:
                raise NotPlainError(where, f"an iterator of more than {MAX_ITEMS:,} items; return a list")
        parts = [_remade(part, where, depth - 1) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return _plain_atom(value)


def _plain_key(key: Any) -> Any:
    return key.item() if type(key).__module__ == "numpy" and hasattr(key, "item") else _plain_atom(key)


def _plain_atom(value: Any) -> Any:
    """Return a number or text of another type as Python's own, anything else itself."""
    kind = type(value)
    if kind in _ATOMS or kind.__module__ == "numpy":
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) or kind.__name__ == "Decimal" else value


def _check_parts(value: list | tuple | dict, where: str, depth: int) -> None:
    if type(value) is dict:
        for key, part in value.items():
            if type(key) not in (bool, int, float, str, type(None)):
                raise NotPlainError(
                    f"a key of {where}", f"{_article(type(key))}; use strings or numbers as keys"
                )
            check_plain(part, f"{where}[{key!r}]", depth=depth)
        return
    for index, part in enumerate(value):
        # A long list of numbers is the common case; it must not cost a formatted path an item.
        if type(part) not in _ATOMS:
            check_plain(part, f"{where}[{index}]", depth=depth)


def _check_tensor(value: Any, where: str) -> None:
    if value.requires_grad:
        raise NotPlainError(
            where,
            "a tensor still on its autograd graph; return tensor.detach(), or tensor.item() for a number",
        )
    if str(value.layout) != "torch.strided" or value.is_quantized:
        raise NotPlainError(where, f"a tensor with layout {value.layout}; return a dense one")


def _check_array(value: Any, where: str) -> None:
    import numpy as np

    if not (type(value) is np.ndarray or isinstance(value, np.generic)):
        raise NotPlainError(where, _describe(value))
    if value.dtype.kind not in "biufcUS":
        raise NotPlainError(where, f"an array of dtype {value.dtype}; use numbers, bools or strings")


def _describe(value: Any) -> str:
    kind, module = type(value), type(value).__module__
    if module.startswith("torch") and kind.__name__ == "Parameter":
        return "a torch Parameter; return parameter.detach()"
    if module.startswith(("tensorflow", "keras")):
        return f"{_article(kind)} of {module.split('.')[0]}; return value.numpy()"
    if callable(value):
        return f"{_article(kind)}; only data may be passed to or returned by a test"
    return f"{_article(kind)}; use numbers, text, lists, dicts, arrays, tensors"


def _article(kind: type) -> str:
    return f"{'an' if kind.__name__[:1].lower() in 'aeiou' else 'a'} {kind.__name__}"
