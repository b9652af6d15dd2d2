"""What of the test cells' contract shows only when they run: what is passed, returned and changed."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy
from types import FunctionType
from typing import TYPE_CHECKING, Any

from coursekit.errors import CoursekitError, require
from coursekit.notebooks.expect import expect_equal
from coursekit.notebooks.forbidden import bound_names, is_solution_code, parse_cell
from coursekit.notebooks.plain import NotPlainError, check_plain
from coursekit.notebooks.probes import probe
from coursekit.notebooks.scoring import grading_words
from coursekit.notebooks.wrong import WrongAnswer

if TYPE_CHECKING:
    from nbformat import NotebookNode


class ContractError(CoursekitError, TypeError):
    """A test cell called a learner's function in a way that grading could not."""


def watched_notebook(notebook: NotebookNode) -> NotebookNode:
    """Return a copy in which test cells see the learner's functions through `watch`.

    Run with the reference's solutions it must get full marks like the notebook itself.
    """
    nbformat = require("nbformat", extra="notebooks")
    copy, names, cells = deepcopy(notebook), set(), []
    for cell in copy.cells:
        words = grading_words(cell)
        if is_solution_code(cell):
            names |= bound_names(tree) if (tree := parse_cell(cell.source)) else set()
        if not (words.get("grade") and cell.cell_type == "code"):
            cells.append(cell)
            continue
        call = f"_seen = _watch(globals(), {sorted(names)})"
        begin = f"from coursekit.notebooks.watch import watch as _watch\n{call}"
        cells += [
            nbformat.v4.new_code_cell(begin),
            cell,
            nbformat.v4.new_code_cell("globals().update(_seen)"),
        ]
    copy.cells = cells
    return copy


def watch(namespace: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Put watched functions in the place of those named, and return the functions that stood there.

    A watched function raises ContractError when a test calls it with anything but plain data, when it returns
    anything else, or when it changes an argument. Calls from a probe or from another of the learner's
    functions are not watched: those happen on the learner's side.
    """
    found = {name: namespace[name] for name in names if type(namespace.get(name)) is FunctionType}
    namespace.update({name: _watched(function) for name, function in found.items()})
    return found


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _on_learners_side(call.__code__):
            return function(*args, **kwargs)
        given = {**dict(enumerate(args, start=1)), **kwargs}
        for name, value in given.items():
            _require_plain(value, f"argument {name} of {function.__name__}")
        before = deepcopy(given)
        result = function(*args, **kwargs)
        _require_plain(result, f"the result of {function.__name__}")
        for name, value in given.items():
            try:
                expect_equal(value, before[name])
            except WrongAnswer as error:
                raise ContractError(
                    f"{function.__name__} changes its argument {name}: use a probe"
                ) from error
        return result

    return call


def _on_learners_side(code: Any) -> bool:
    """Return whether the caller was reached through a probe or through a watched function."""
    # A rank of coursekit.parallel.launch has a stack of its own; only a probe may have started it.
    if "COURSEKIT_LAUNCH" in os.environ:
        return True
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is code or frame.f_code is probe.__code__:
            return True
        frame = frame.f_back
    return False


def _require_plain(value: Any, where: str) -> None:
    try:
        check_plain(value, where)
    except NotPlainError as error:
        raise ContractError(f"{error}; in grading this could not travel, use a probe") from error
