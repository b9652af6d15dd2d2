"""Patching what the tests compare with: our functions, numpy, the standard library, builtins."""

from .corpus import Family

attack = ATTACKS = Family("patching")
WRONG = "\ndef double(number):\n    return 0.0\n"


@attack("points")
def comparison_compares_nothing():
    """Replace the inner comparison of `expect_close`, which the tests' imported name still calls."""
    return {
        "double": "import coursekit.notebooks.expect as expect\nexpect._close = lambda *args: None" + WRONG
    }


@attack("points")
def code_of_expect_close_is_exchanged():
    """Exchange the code object: the function keeps its identity, wherever it was imported to."""
    return {
        "double": "def accept(got, want, *, rtol=1e-6, atol=0.0, hint=''):\n    pass\n"
        "expect_close.__code__ = accept.__code__" + WRONG
    }


@attack("points")
def points_for_gives_all_points():
    """Exchange the code of `points_for`: all parts count."""
    return {
        "norm": "def give(parts):\n    return sum(points for points, _ in parts)\n"
        "points_for.__code__ = give.__code__\ndef norm(vector):\n    return 0.0"
    }


@attack("points")
def numpy_finds_no_difference():
    """Make `np.abs` return zeros: then every error is zero."""
    return {"double": "np.abs = lambda array: np.zeros(np.shape(array))" + WRONG}


@attack("points", honest=0)
def allclose_is_always_true():
    """Patch `np.allclose`, which a test of the exercise's author calls itself."""
    return {"scale": "np.allclose = lambda *args, **options: True\ndef scale(numbers, factor):\n    return 0"}


@attack("points", honest=0)
def isclose_is_always_true():
    """Patch `math.isclose`, in the module that the locked cell imported."""
    return {
        "scale": "math.isclose = lambda *args, **options: True\n"
        "def scale(numbers, factor):\n    return [0.0, 0.0]"
    }


@attack("points", honest=0)
def builtin_all_is_always_true():
    """Patch a builtin."""
    return {
        "scale": "import builtins\nbuiltins.all = lambda values: True\n"
        "def scale(numbers, factor):\n    return [0.0, 0.0]"
    }


@attack("points")
def tracer_rewrites_arguments():
    """Trace every call; where a comparison begins, make the answer what is wanted."""
    return {
        "double": """
import ctypes
import sys
def trace(frame, event, argument):
    if frame.f_code.co_name == "expect_close":
        frame.f_locals["got"] = frame.f_locals["want"]
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
    return None
shell = get_ipython()
shell.events.register("pre_run_cell", lambda *_: sys.settrace(trace))
"""
        + WRONG
    }


@attack("points")
def errors_are_not_raised():
    """Make the function that raises for a wrong answer return instead."""
    return {
        "double": "import coursekit.notebooks.expect as expect\nexpect._fail = lambda *args: None" + WRONG
    }


@attack("points")
def probe_lies():
    """Exchange the code of `probe`, so that it returns what the test wants without asking anybody."""
    return {"double": "def lie(function, *plain):\n    return 3.5\nprobe.__code__ = lie.__code__" + WRONG}
