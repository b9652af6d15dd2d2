"""Errors that say what was expected, what was got, and what to do."""

from __future__ import annotations

import importlib
import numbers
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class CoursekitError(Exception):
    """Base of every error that coursekit raises on purpose."""


class InputError(CoursekitError, ValueError):
    """Bad input from the caller.

    Args:
        problem: what is wrong, in one clause.
        expected, got: what would have been right, and what came instead.
        fix: what the caller can do about it.

    >>> print(InputError("the batch does not divide", expected="a multiple of 4", got=6, fix="use 4 or 8"))
    the batch does not divide: expected a multiple of 4, got 6; use 4 or 8
    """

    def __init__(self, problem: str, *, expected: object = None, got: object = None, fix: str = "") -> None:
        self.problem, self.expected, self.got, self.fix = problem, expected, got, fix
        super().__init__(_sentence(problem, expected, got, fix))


def check_whole(problem: str, *, least: int = 1, **values: object) -> None:
    """Raise an InputError unless each of the named values is a whole number of `least` or more.

    A float passes comparisons, and then a loop never ends or a share is rounded: 2.0 is refused as well.

    >>> check_whole("nothing to train on", num_steps=3)
    >>> check_whole("nothing to train on", num_steps=2.5)
    Traceback (most recent call last):
    coursekit.errors.InputError: nothing to train on: expected a whole num_steps >= 1, got 2.5
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            raise InputError(problem, expected=f"a whole {name} >= {least}", got=repr(value))


class MissingExtraError(CoursekitError, ImportError):
    """A package that an optional part of coursekit needs is not installed.

    >>> print(MissingExtraError("tensorflow", extra="tf"))
    tensorflow is not installed; it comes with: pip install 'coursekit[tf]'
    """

    def __init__(self, package: str, *, extra: str) -> None:
        self.extra = extra
        super().__init__(
            f"{package} is not installed; it comes with: pip install 'coursekit[{extra}]'",
            name=package,
        )


def require(package: str, *, extra: str) -> ModuleType:
    """Return the imported `package`, or raise an error that names the extra which installs it.

    Raises: MissingExtraError if the package itself is absent. An error inside it passes through.
    """
    try:
        with _without_grammars():
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        # A missing dependency *of* the package is another fault and must not be blamed on the extra.
        if error.name is not None and package.split(".")[0] == error.name.split(".")[0]:
            raise MissingExtraError(package.split(".")[0], extra=extra) from error
        raise


@contextmanager
def _without_grammars() -> Iterator[None]:
    """Let jsonschema, which nbformat imports, find that rfc3987_syntax is not installed.

    JupyterLab brings it along. It builds 38 grammars when imported, in two seconds, for a check of
    international web addresses that no notebook's schema asks for.
    """
    name = "rfc3987_syntax"
    if name in sys.modules or "jsonschema" in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _sentence(problem: str, expected: object, got: object, fix: str) -> str:
    facts = [f"expected {expected}"] if expected is not None else []
    facts += [f"got {got}"] if got is not None else []
    text = problem + (": " + ", ".join(facts) if facts else "")
    return f"{text}; {fix}" if fix else text
