"""The formulas in JavaScript, for the page that plans without a kernel: translated, never written twice."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from importlib import resources

from coursekit.plan.javascript_functions import constant_lines, function_lines
from coursekit.plan.javascript_names import Scope, argument_names, js_name, refuse

_FORMULAS = "coursekit.formulas"


def formula_sources() -> dict[str, str]:
    """Return the text of each file of formulas, by the file's name."""
    files = sorted(resources.files(_FORMULAS).iterdir(), key=lambda file: file.name)
    return {file.name: file.read_text("utf-8") for file in files if file.name.endswith(".py")}


def to_javascript(sources: Mapping[str, str] | None = None, *, name: str = "coursekitPlan") -> str:
    """Return a classic script that defines the global `name`, with every function of the sources.

    Arithmetic keeps Python's meaning: `//` and `%` round down, `/` never does, `round` goes to the even
    neighbour, a division by zero and a number mixed with text raise. Numbers are doubles, so that a whole
    number beyond 2⁵³ agrees to 16 digits only. Dicts are Maps, None is null.

    The script's object has three parts:

        functions   by name; arguments by position
        signatures  for each function the names of its arguments, in order
        call        call("f", {"d_model": 4096, ...}) takes what f needs by name and ignores the rest

    A script and no module: a page opened from the disk may not load modules.

    Args:
        sources: Python text by the file's name; None takes all of `coursekit.formulas`.
        name: of the global that the script defines.
    Raises: InputError, with file and line, for whatever has no translation: loops, exceptions, classes, and
        calls of anything but other formulas, `math` and some builtins.

    >>> "py.floordiv(n, 2)" in to_javascript({"tiny.py": "def half(n): return n // 2"})
    True
    """
    trees = {file: ast.parse(text) for file, text in (sources or formula_sources()).items()}
    functions, constants = _declared(trees)
    body: list[str] = []
    for file, tree in trees.items():
        scope = Scope(file, functions, frozenset(constants))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                body += ["", *function_lines(node, scope)]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                body += ["", *constant_lines(node, scope)]
    return _script(name, body, functions)


def _script(name: str, body: list[str], functions: Mapping[str, ast.FunctionDef]) -> str:
    runtime = resources.files("coursekit.plan").joinpath("python_semantics.js").read_text("utf-8")
    signatures = {function: argument_names(node) for function, node in functions.items()}
    lines = [
        "// Made from coursekit/formulas when the book is built: change it there.",
        f"globalThis.{name} = (() => {{",
        '"use strict";',
        runtime,
        *body,
        "",
        f"const functions = {{ {', '.join(f'{json.dumps(f)}: {js_name(f)}' for f in functions)} }};",
        f"const signatures = {json.dumps(signatures)};",
        "const given = (values, name) => (Object.hasOwn(values, name) ? values[name] : undefined);",
        "const call = (f, values) => functions[f](...signatures[f].map((name) => given(values, name)));",
        "return { functions, signatures, call };",
        "})();",
    ]
    return "\n".join(lines) + "\n"


def _declared(trees: Mapping[str, ast.Module]) -> tuple[dict[str, ast.FunctionDef], set[str]]:
    """Return the functions by name and the names of the constants, of all files together."""
    functions: dict[str, ast.FunctionDef] = {}
    constants: set[str] = set()
    for file, tree in trees.items():
        for node in tree.body:
            match node:
                case ast.FunctionDef(name=name):
                    _check_new(name, {*functions, *constants}, node, file)
                    functions[name] = node
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    _check_new(name, {*functions, *constants}, node, file)
                    constants.add(name)
                case ast.Import() | ast.ImportFrom() if _is_known_import(node):
                    continue
                case ast.Expr(value=ast.Constant(value=str())):
                    continue
                case _:
                    raise refuse(node, file, "a function, a constant, `import math` or other formulas")
    return functions, constants


def _check_new(name: str, taken: set[str], node: ast.stmt, file: str) -> None:
    if name in taken:
        raise refuse(node, file, f"a name of its own in place of {name}: all files of formulas share theirs")


def _is_known_import(node: ast.Import | ast.ImportFrom) -> bool:
    if isinstance(node, ast.Import):
        return [(alias.name, alias.asname) for alias in node.names] == [("math", None)]
    if any(alias.asname for alias in node.names):
        return False
    inside = node.level > 0 or (node.module or "").startswith(_FORMULAS)
    return inside or node.module == "__future__"
