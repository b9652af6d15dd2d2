"""Names in the translation to JavaScript, and the error for what has none."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping

from coursekit.errors import InputError

_JAVASCRIPT_WORDS = frozenset(
    "arguments await case catch class const debugger default delete do enum eval export extends function "
    "functions given call signatures implements import instanceof interface let new null package private "
    "protected public py static super switch this throw try typeof undefined var void with yield Map Math "
    "Number Infinity true false NaN Object globalThis".split()
)


@dataclasses.dataclass(frozen=True)
class Scope:
    """Names that may be read: formulas, constants, and the locals of one function."""

    file: str
    functions: Mapping[str, ast.FunctionDef]
    constants: frozenset[str]
    locals: frozenset[str] = frozenset()

    def within(self, names: set[str]) -> Scope:
        """Return the scope with more locals."""
        return dataclasses.replace(self, locals=self.locals | names)


def refuse(node: ast.AST, file: str, expected: str) -> InputError:
    """Return the error that names the place and shows what stands there."""
    got = ast.unparse(node).splitlines()[0]
    return InputError(
        f"{file}, line {getattr(node, 'lineno', '?')}, has no translation into JavaScript",
        expected=expected,
        got=f"`{got}`",
    )


def js_name(name: str) -> str:
    """Return a name that JavaScript allows.

    >>> js_name("d_model"), js_name("new")
    ('d_model', 'new$')
    """
    return f"{name}$" if name in _JAVASCRIPT_WORDS else name


def argument_names(node: ast.FunctionDef) -> list[str]:
    """Return the names of a function's arguments, keyword-only ones last."""
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
