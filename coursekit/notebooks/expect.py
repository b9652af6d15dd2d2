"""Comparisons for test cells, whose error is the sentence that a learner reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from coursekit.notebooks.plain import NotPlainError, as_plain, is_tensor
from coursekit.notebooks.wrong import WrongAnswer, is_unwritten, sentence

_NUMBERS = (int, float, complex)


def expect_close(got: Any, want: Any, *, rtol: float = 1e-6, atol: float = 0.0, hint: str = "") -> None:
    """Pass if max|got - want| <= atol + rtol * max|want|, in each array or number of a nested value.

    The error is relative to the largest expected number: unlike `allclose`, whose default atol lets 0
    pass for 1e-9, nothing but an exact 0 is close to an expected 0 unless the test gives an `atol`. Numbers
    in a list belong together, as in an array; each of a tuple is compared by itself.
    Shapes, keys and lengths must be the same; NaN and infinities must stand where they are expected.
    Whole numbers may stand for floats; an expected array of integers or bools wants integers or bools.

    Args:
        got: the learner's value: number, array, tensor, or lists, tuples and dicts of them.
        want: the expected value, computed by the test.
        rtol: tolerance as a share of the largest expected number.
        atol: tolerance in the unit of `want`.
        hint: where to look, as a clause; the error ends with it.

    >>> expect_close([1.0, 2.0], (1.0, 2.0 + 1e-9))
    >>> expect_close(2.0, 8 / 6, hint="by tokens")
    Traceback (most recent call last):
        ...
    coursekit.notebooks.wrong.WrongAnswer: expected 1.33333, got 2 (off by 0.667, allowed 1.3e-06); by tokens

    Raises: WrongAnswer.
    """
    got = _plain_answer(got, hint)
    _close(got, want, "", rtol, atol, hint)


def expect_equal(got: Any, want: Any, *, hint: str = "") -> None:
    """Pass if the two are the same plain data; lists and tuples count as the same, True and 1 do not.

    >>> expect_equal((2, 3), [2, 3])
    >>> expect_equal("adam", "sgd", hint="read the third argument")
    Traceback (most recent call last):
        ...
    coursekit.notebooks.wrong.WrongAnswer: expected 'sgd', got 'adam'; read the third argument

    Raises: WrongAnswer.
    """
    got = _plain_answer(got, hint)
    _equal(got, want, "", hint)


def points_for(parts: Sequence[tuple[float, Callable[[], Any]]]) -> float:
    """Return the points of the parts that pass: partial credit, as the last expression of a test cell.

    A part that raises earns nothing, and its message is printed; the other parts still count.

    >>> points_for([(1, lambda: expect_equal(4, 4)), (2, lambda: expect_equal(5, 4, hint="add, then carry"))])
    missed 2 points: expected 4, got 5; add, then carry
    1
    """
    earned: float = 0
    for points, part in parts:
        try:
            part()
        except Exception as error:
            reason = _reason(error)
            print(f"missed {points} point{'' if points == 1 else 's'}: {reason}")
        else:
            earned += points
    return earned


def _plain_answer(got: Any, hint: str) -> Any:
    try:
        return as_plain(got, "the answer")
    except NotPlainError as error:
        raise WrongAnswer(sentence(str(error), hint)) from None


def _close(got: Any, want: Any, where: str, rtol: float, atol: float, hint: str) -> None:
    if isinstance(want, dict):
        _same_keys(got, want, where, hint)
        for key in want:
            _close(got[key], want[key], f"{where}[{key!r}]", rtol, atol, hint)
    elif want is None or isinstance(want, str | bytes):
        _equal(got, want, where, hint)
    elif not _holds_tuple(want) and (numbers := _as_array(want)) is not None:
        _close_arrays(got, want, numbers, where, rtol, atol, hint)
    else:
        _same_length(got, want, where, hint)
        for index, part in enumerate(want):
            _close(got[index], part, f"{where}[{index}]", rtol, atol, hint)


def _close_arrays(got: Any, want: Any, wanted: Any, where: str, rtol: float, atol: float, hint: str) -> None:
    """Compare one array of numbers (or one number) with the learner's."""
    import numpy as np

    given = _as_array(got)
    if given is None:
        _fail(where, f"expected {_show(want)}, got {_show(got)}", hint)
    if given.shape != wanted.shape:
        _fail(where, f"expected {_shape(wanted)}, got {_shape(given)}", hint)
    _same_kind(given, wanted, where, hint, typed=hasattr(want, "dtype") and bool(wanted.shape))
    if wanted.size == 0:
        return
    if wanted.dtype.kind in "US":
        _equal(given.tolist(), wanted.tolist(), where, hint)
        return
    precise = np.complex128 if "c" in (given.dtype.kind, wanted.dtype.kind) else np.float64
    given, wanted = given.astype(precise), wanted.astype(precise)
    finite = np.isfinite(wanted)
    same_special = np.where(np.isnan(wanted), np.isnan(given), given == wanted)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(given - wanted)
    error = np.where(finite, np.where(np.isfinite(given), error, np.inf), np.where(same_special, 0.0, np.inf))
    allowed = atol + rtol * (float(np.abs(wanted[finite]).max()) if finite.any() else 0.0)
    if not error.max() <= allowed:
        _fail(where, _difference(given, wanted, error, allowed), hint)


def _difference(given: Any, wanted: Any, error: Any, allowed: float) -> str:
    import numpy as np

    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    facts = f"expected {_number(wanted[worst])}, got {_number(given[worst])}"
    size = float(error[worst])
    if math.isfinite(size):
        facts += f" (off by {size:.3g}, allowed {allowed:.2g})"
    if not error.shape:
        return facts
    place = ", ".join(str(int(index)) for index in worst)
    return f"{int((error > allowed).sum())} of {error.size} numbers are off, most at [{place}]: {facts}"


def _equal(got: Any, want: Any, where: str, hint: str) -> None:
    if type(got).__module__ == "numpy" and not getattr(got, "shape", True) and not hasattr(want, "dtype"):
        got = got.item()  # numpy's text, number or bool
    if isinstance(want, dict):
        _same_keys(got, want, where, hint)
        for key in want:
            _equal(got[key], want[key], f"{where}[{key!r}]", hint)
    elif isinstance(want, list | tuple):
        _same_length(got, want, where, hint)
        for index, part in enumerate(want):
            _equal(got[index], part, f"{where}[{index}]", hint)
    elif hasattr(want, "dtype") or hasattr(got, "dtype"):
        if (wanted := _as_array(want)) is None:
            _fail(where, f"expected {_show(want)}, got {_show(got)}", hint)
        _close_arrays(got, want, wanted, where, 0.0, 0.0, hint)
    elif isinstance(want, bool) != isinstance(got, bool) or (got != want and not _both_nan(got, want)):
        _fail(where, f"expected {_show(want)}, got {_show(got)}", hint)


def _both_nan(got: Any, want: Any) -> bool:
    return isinstance(got, float) and isinstance(want, float) and math.isnan(got) and math.isnan(want)


def _same_keys(got: Any, want: dict, where: str, hint: str) -> None:
    if not isinstance(got, dict):
        _fail(where, f"expected a dict with keys {_show(list(want))}, got {_show(got)}", hint)
    missing, extra = [k for k in want if k not in got], [k for k in got if k not in want]
    if missing or extra:
        facts = [f"lacks {_show(missing)}"] if missing else []
        _fail(
            where,
            "the dict " + " and ".join(facts + ([f"has {_show(extra)} too many"] if extra else [])),
            hint,
        )


def _same_length(got: Any, want: Any, where: str, hint: str) -> None:
    if is_tensor(got) or type(got).__module__ == "numpy":
        got = got.tolist()
    if not isinstance(got, list | tuple):
        _fail(where, f"expected a list of {len(want)}, got {_show(got)}", hint)
    if len(got) != len(want):
        _fail(where, f"expected {len(want)} items, got {len(got)}", hint)


def _same_kind(given: Any, wanted: Any, where: str, hint: str, *, typed: bool) -> None:
    """Raise if bools, whole numbers, floats or complex numbers stand where another kind belongs.

    `typed`: an array or tensor is expected, whose dtype its author chose; 2 in a list may be met by 2.0.
    """
    kinds = {"b": "bools", "i": "whole numbers", "u": "whole numbers", "f": "floats", "c": "complex numbers"}
    got, want = kinds.get(given.dtype.kind, "text"), kinds.get(wanted.dtype.kind, "text")
    fine = {("whole numbers", "floats"), ("whole numbers", "complex numbers"), ("floats", "complex numbers")}
    fine |= set() if typed else {("floats", "whole numbers")}
    if got != want and (got, want) not in fine:
        _fail(where, f"expected {want} ({wanted.dtype}), got {got} ({given.dtype})", hint)


def _as_array(value: Any) -> Any:
    """Return a float, int, bool, complex or text array of the value, or None where it is no regular array."""
    import numpy as np

    if is_tensor(value):
        value = value.detach().cpu()
        value = value.double() if str(value.dtype) in ("torch.bfloat16", "torch.float16") else value
        return value.resolve_conj().numpy()
    if isinstance(value, (*_NUMBERS, np.generic, np.ndarray)):
        return np.asarray(value)
    if isinstance(value, list | tuple) and value and all(_regular(part) for part in value):
        parts = [_as_array(part) for part in value]
        same = all(part is not None and part.shape == parts[0].shape for part in parts)
        return np.stack(parts) if same and all(part.dtype.kind not in "US" for part in parts) else None
    return None


def _holds_tuple(want: Any) -> bool:
    # Unlike things stand in a tuple, such as (processors, bytes): measured by the larger, the other is free.
    return isinstance(want, tuple) or (isinstance(want, list) and any(map(_holds_tuple, want)))


def _regular(part: Any) -> bool:
    return not isinstance(part, dict | str | bytes | None)


def _fail(where: str, fact: str, hint: str) -> None:
    raise WrongAnswer(sentence(f"at {where}: {fact}" if where else fact, hint))


def _shape(array: Any) -> str:
    return f"shape {tuple(array.shape)}" if array.shape else "a single number"


def _number(value: Any) -> str:
    return f"{value:.6g}"


def _show(value: Any) -> str:
    """Return a short description: small values as they are, large ones by type and shape."""
    if is_tensor(value) or type(value).__name__ == "ndarray":
        name = "tensor" if is_tensor(value) else "array"
        return f"{name} of shape {tuple(value.shape)}" if value.ndim else f"{value.item()!r}"
    if isinstance(value, float):
        return _number(value)
    text = _beginning(value, 81)
    if len(text) <= 80:
        return text
    size = f", {len(value)} {_PARTS[type(value)]}{'s'[len(value) == 1 :]}" if type(value) in _PARTS else ""
    return f"{text[:60]}... ({type(value).__name__}{size})"


_PARTS = {str: "character", bytes: "byte", list: "item", tuple: "item", dict: "item"}


def _beginning(value: Any, room: int) -> str:
    """Return the text of a value: all of it if it has fewer characters than `room`, else as many or more.

    The whole text of the largest answer that there may be takes seconds.
    """
    kind = type(value)
    if kind not in _PARTS or not value:
        return repr(value)
    if kind in (str, bytes):
        return repr(value[:room])
    start, end = {list: "[]", tuple: "()", dict: "{}"}[kind]
    text = start
    for part in value.items() if kind is dict else value:
        text += ", " if len(text) > 1 else ""
        if kind is dict:
            key, part = part
            text += f"{_beginning(key, max(1, room - len(text)))}: "
        text += _beginning(part, max(1, room - len(text)))
        if len(text) >= room:
            break
    return f"{text}{',' if kind is tuple and len(value) == 1 else ''}{end}"


def _reason(error: Exception) -> str:
    if isinstance(error, WrongAnswer):
        return str(error)
    name = type(error).__name__
    return "not written yet" if is_unwritten(name, str(error)) else f"{name}: {error}"
