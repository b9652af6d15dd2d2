"""Each thing that the translation into JavaScript knows, in a browser and in Python, on random inputs."""

import json
import math
import random
from pathlib import Path

import pytest

from coursekit.plan.javascript import to_javascript

pytestmark = pytest.mark.browser

LANGUAGE = Path(__file__).with_name("formula_language.py").read_text()


def run(chromium, script, calls):
    """Return what the translated functions give: for each call its result, or the word "raises"."""
    page = chromium.new_page()
    page.goto("about:blank")
    page.add_script_tag(content=script)
    results = page.evaluate(
        """(text) => JSON.stringify(JSON.parse(text).map(([f, values]) => {
            const plain = (x) => x instanceof Map ? [...x].map(([k, v]) => [String(k), plain(v)]) : x;
            try { return plain(coursekitPlan.call(f, values)) } catch (error) { return "raises" }
        }))""",
        json.dumps(calls),
    )
    page.close()
    return json.loads(results)


def in_python(function, values):
    """Return what Python gives, in the same form."""
    try:
        return _plain(function(**values))
    except (ArithmeticError, TypeError, ValueError):
        return "raises"


def _plain(value):
    if isinstance(value, dict):
        return [[str(key), _plain(inside)] for key, inside in value.items()]
    return value


def same(got, want):
    """Whether two results agree: names and their order exactly, numbers to 12 digits."""
    if isinstance(want, list):
        return (
            isinstance(got, list)
            and [name for name, _ in got] == [name for name, _ in want]
            and all(same(g, w) for (_, g), (_, w) in zip(got, want, strict=True))
        )
    if isinstance(want, bool) or want is None or isinstance(want, str):
        return type(got) is type(want) and got == want
    return isinstance(got, int | float) and math.isclose(got, want, rel_tol=1e-12, abs_tol=0)


def differences(chromium, source, calls, *, oracle=None):
    """Return the calls whose result in the browser is not the one in Python."""
    names: dict = {}
    exec(oracle or source, names)
    results = run(chromium, to_javascript({"language.py": source}), calls)
    return [
        (call, got)
        for call, got in zip(calls, results, strict=True)
        if not same(got, in_python(names[call[0]], call[1]))
    ]


def random_calls(count, seed=0):
    """Return calls of every function of the file: whole numbers, fractions, negative ones, zeros, True."""
    draw = random.Random(seed)

    def number():
        return draw.choice(
            [
                draw.randint(-12, 12),
                draw.randint(1, 10**9),
                draw.uniform(-9, 9),
                draw.choice([0, 0.1, 1, 2.5, True]),
            ]
        )

    calls = []
    for _ in range(count):
        for name in ("operators", "powers", "rounding", "choices", "tables", "mathematics", "calls"):
            calls.append([name, {"a": number(), "b": number()}])
        calls[-4][1] |= {"kind": draw.choice(["small", "large"]), "flag": draw.random() < 0.5}
    return calls


def test_the_language_of_the_formulas_means_the_same_in_the_browser(chromium):
    calls = random_calls(300)
    assert differences(chromium, LANGUAGE, calls) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a // b", "a / b"),
        ("round(a)", "int(a)"),
        ("a % b", "a - b"),
        ("2 * value", "3 * value"),
        ("b * 2", "b * 2.000001"),
    ],
)
def test_a_planted_difference_is_seen(chromium, right, wrong):
    assert right in LANGUAGE
    calls = random_calls(20)
    assert differences(chromium, LANGUAGE, calls, oracle=LANGUAGE.replace(right, wrong, 1))
