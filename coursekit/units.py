"""Units of memory, time and counts, and how they are written for people."""

from __future__ import annotations

KiB, MiB, GiB, TiB = 2**10, 2**20, 2**30, 2**40
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12


def format_bytes(num_bytes: float) -> str:
    """Return a size in binary units with three significant digits.

    >>> format_bytes(1536), format_bytes(80 * GiB), format_bytes(12)
    ('1.50 KiB', '80.0 GiB', '12 bytes')
    """
    for unit, size in (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB)):
        if abs(num_bytes) >= size:
            return f"{_three_digits(num_bytes / size)} {unit}"
    return f"{num_bytes:.0f} bytes"


def format_count(count: float) -> str:
    """Return a count with three significant digits and a decimal prefix.

    >>> format_count(6_738_415_616), format_count(3.14e23), format_count(42)
    ('6.74 B', '3.14e+23', '42')
    """
    if abs(count) >= 1e15:
        return f"{count:.2e}"
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(count) >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f}"


def format_seconds(seconds: float) -> str:
    """Return a duration in the unit that a person would choose.

    >>> format_seconds(0.0021), format_seconds(75), format_seconds(7200), format_seconds(3 * 86400)
    ('2.1 ms', '75.0 s', '2.0 h', '3.0 days')
    """
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 120.0)):
        if seconds >= size:
            return f"{seconds / (60.0 if unit == 'min' else size):.1f} {unit}"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _three_digits(value: float) -> str:
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"
