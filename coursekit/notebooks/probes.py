"""Code of a test that has to run on the learner's side."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from coursekit.errors import CoursekitError
from coursekit.notebooks.plain import NotPlainError, as_plain, check_plain
from coursekit.notebooks.wrong import WrongAnswer


class ProbeError(CoursekitError, TypeError):
    """A probe that could not be sent to the learner's side: a fault of the test, not of the answer."""


# Takes a probe's source, its name and its arguments to the learner's side and returns the result.
Runner = Callable[[str, str, tuple], Any]
_runner: ContextVar[Runner | None] = ContextVar("probe_runner", default=None)


@contextmanager
def probes_run_by(runner: Runner) -> Iterator[None]:
    """Have every `probe` inside the block run by `runner` instead of in place."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


def probe(function: Callable[..., Any], *plain: Any) -> Any:
    """Return `function(*plain)`, run on the learner's side.

    In a learner's notebook that is right here. In grading the function's source runs in the learner's
    process and only plain data comes back; what that would refuse is refused here as well.

    Args:
        function: a `def` of the test cell that uses its arguments, its own imports, names of solution
            cells and names of locked cells; no closure, no default values, no decorator.
        plain: arguments of plain data (`coursekit.notebooks.check_plain`).

    Raises: ProbeError for a function or argument that could not travel; WrongAnswer if the result is not
        plain data.
    """
    source = probe_source(function)
    for number, argument in enumerate(plain, start=1):
        try:
            check_plain(argument, f"argument {number} of probe({function.__name__}, ...)")
        except NotPlainError as error:
            raise ProbeError(str(error)) from None
    run = _runner.get()
    result = run(source, function.__name__, plain) if run else function(*plain)
    try:
        return as_plain(result, f"the result of {function.__name__}")
    except NotPlainError as error:
        raise WrongAnswer(str(error)) from None


def probe_source(function: Callable[..., Any]) -> str:
    """Return the dedented source of a probe.

    Raises: ProbeError if it is not one self-contained `def` whose source can be read.
    """
    if type(function) is not FunctionType or function.__name__ == "<lambda>":
        raise ProbeError("a probe is a function written with def in the test cell")
    name = function.__name__
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        raise ProbeError(f"probe {name} is a closure over {names}; pass them as arguments")
    if function.__defaults__ or function.__kwdefaults__:
        raise ProbeError(f"probe {name} has default values; pass every argument from the test")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise ProbeError(f"the source of probe {name} cannot be read ({error})") from error
    if ast.parse(source).body[0].decorator_list:  # type: ignore[attr-defined]
        raise ProbeError(f"probe {name} is decorated; a probe travels as its plain source")
    return source
