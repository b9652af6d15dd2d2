"""One function for each thing that the translation into JavaScript knows; see test_formula_language.py."""

import math

SIZES = {"small": 1, "large": 1e3, 3: 0.5}
HALF = 0.5


def operators(a, b):
    """Every operator."""
    c = a
    c += b * 2
    c -= a / b
    return {
        "sum": a + b,
        "difference": a - b,
        "product": a * b,
        "quotient": a / b,
        "whole": a // b,
        "rest": a % b,
        "c": -c,
    }


def powers(a, b):
    return abs(a) ** (b % 3) + (a - b) ** 2 + 2 ** -abs(b)


def rounding(a, b):
    return {
        "round": round(a),
        "halves": round(a // 1 + HALF),
        "ceil": math.ceil(a / b),
        "floor": math.floor(a / b),
        "int": int(a),
        "int of a negative": int(-abs(b)),
        "round up": -(-a // b),
    }


def choices(a, b, kind="small", *, flag=False):
    x, y = a, b
    if kind == "small" and not flag:
        x = y
    elif 0 < a <= b < 9 or flag:
        x = 2 * y
    else:
        y = -1
    z = x if a != b else None
    return {
        f"{kind} part": x,
        "y": y,
        "none": z is None,
        "kind": kind in ("small", 3),
        "known": kind in SIZES,
        "size": SIZES[kind],
        "got": SIZES.get("none", 7),
        "or": a // 7 or b,
        "and": a // 7 and b,
        "flag": flag + 1,
        "same": flag == 1,
        "text": kind + "!",
    }


def tables(a, b):
    parts = {"a": a, **operators(b=b, a=a)}
    parts["b"] = b
    doubled = {name: 2 * value for name, value in parts.items() if name != "sum"}
    return {
        "sum": sum(doubled.values()),
        "least": min(value + 1 for value in parts.values()),
        "most": max(a, b, 3),
        "total": sum((a, b, 1)),
        "keys": sum(1 for key in parts.keys() if key in ("a", "b")),
        **doubled,
    }


def mathematics(a, b):
    return (
        math.sqrt(abs(a))
        + math.log(abs(b) + 1)
        + math.log2(a * a + 1) * math.log10(3)
        + math.pi / math.exp(1 / (b * b + 1))
    )


def calls(a, b, c=2):
    return {"default": choices(a, b)["y"], "named": choices(b=a, a=b, kind="large", flag=c > 1)["large part"]}
