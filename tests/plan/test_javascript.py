"""What the translation of formulas takes and refuses; tests/book/test_formula_language.py runs it."""

import pytest

from coursekit.errors import InputError
from coursekit.plan.javascript import to_javascript


def translate(source):
    return to_javascript({"formulas.py": source})


def test_arguments_by_name_are_put_in_their_positions():
    script = translate("def f(a, b=2, *, c=3): return a\ndef g(x): return f(x, c=x)")
    assert "return f(x, undefined, x);" in script
    assert '"f": ["a", "b", "c"]' in script


def test_a_word_that_javascript_keeps_for_itself_gets_another_name():
    script = translate("def new(default): return default")
    assert "function new$(default$" in script
    assert '"new": new$' in script


REFUSED = {
    "a loop": "def f(n):\n    for i in range(n):\n        n = n - i\n    return n",
    "while": "def f(n):\n    while n: n = n - 1\n    return n",
    "an exception": "def f(n):\n    raise ValueError",
    "a bit operator": "def f(n): return n ^ 2",
    "a shift": "def f(n): return n << 2",
    "rounding to digits": "def f(n): return round(n, 2)",
    "an unknown name": "def f(n): return n * m",
    "an unknown function": "def f(n): return g(n)",
    "a method": "def f(n): return n.bit_length()",
    "too many arguments": "def g(a): return a\ndef f(n): return g(n, n)",
    "an unknown argument": "def g(a): return a\ndef f(n): return g(n, b=1)",
    "an argument twice": "def g(a): return a\ndef f(n): return g(n, a=1)",
    "a lambda": "def f(n): return (lambda x: x)(n)",
    "a decorator": "import math\n@staticmethod\ndef f(n): return n",
    "any number of arguments": "def f(*n): return 1",
    "a class": "class C: pass",
    "another import": "import numpy",
    "an import under another name": "import math as m",
    "a number that no double holds": "def f(n): return n + 9007199254740993",
    "a builtin's name": "def f(max): return max",
    "a constant twice": "A = 1\nA = 2",
    "a format": "def f(n): return f'{n:.2f}'",
    "a comparison of calls": "import math\ndef f(n): return 0 < math.sqrt(n) < 3",
    "min of one number by keyword": "def f(n): return min(n, default=0)",
    "a truth value as a key": "def f(n): return {True: n}",
    "is": "def f(n): return n is True",
    "an unpacked call": "def f(n): (a, b) = g(n)\ndef g(n): return n",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_has_no_translation_is_refused_with_its_place(source):
    with pytest.raises(InputError, match=r"formulas\.py, line \d+, has no translation.*expected .*, got `"):
        translate(source)
