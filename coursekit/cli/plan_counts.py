"""Counts as people write them: 4_000_000, 16e6, 16M, 15.6T."""

from __future__ import annotations

import re

from coursekit.errors import InputError

TIMES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20}
"""What the end of a count multiplies by; the planner's page reads counts by these and by `COUNT`."""
COUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:e\+?(\d+))?\s*([kmbgt]|ki|mi)?", re.IGNORECASE)


def count(text: str | int) -> int:
    """Return a whole number above 0.

    Args:
        text: digits with "_" or "," between them, an exponent, or one of K M B G T (powers of 1000), Ki, Mi
            (powers of 1024) at the end. A number is an option's own default.
    Raises: InputError for anything else, and for what is no whole number.

    >>> count("4_000_000"), count("16e6"), count("16M"), count("15.6T"), count("8Ki")
    (4000000, 16000000, 16000000, 15600000000000, 8192)
    """
    from fractions import Fraction

    found = COUNT.fullmatch(str(text).strip().replace("_", "").replace(",", ""))
    if found is None or len(found[2] or "") > 3:
        raise InputError("no count", expected="as 4000000, 4_000_000, 4e6 or 4M", got=repr(text))
    value = Fraction(found[1]) * 10 ** int(found[2] or 0) * TIMES[(found[3] or "").lower()]
    if value.denominator != 1 or value < 1:
        raise InputError("no count", expected="a whole number above 0", got=repr(text))
    return int(value)


def length(text: str | int) -> int:
    """Return a number of tokens of a sequence, of which "8K" may mean two.

    Raises: InputError for that, and as `count`.
    """
    value = count(text)
    if str(text).strip().lower().endswith("k"):
        thousands = value // 1000
        raise InputError(
            "two lengths are written so", expected=f"{thousands * 1024} or {value}", got=repr(text)
        )
    return value
