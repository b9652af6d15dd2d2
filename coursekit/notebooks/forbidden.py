"""Imports that an exercise forbids, named kindly.

This is a courtesy to the learner, who is told early that an exercise wants the thing written by hand. It is
no defence: Python has more ways to reach a module than reading the source can see.
"""

from __future__ import annotations

import ast
import re
import threading
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coursekit.notebooks.scoring import grading_words

if TYPE_CHECKING:
    from nbformat import NotebookNode

# Python counts the depth of a tree for all threads together: two that parse at once may raise SystemError
# (python/cpython issue 106905). Grading parses in several threads.
_PARSING = threading.Lock()
_IMPORT_CALLS = ("__import__", "import_module", "importlib.import_module")


@dataclass(frozen=True)
class Forbidden:
    """A forbidden name in a solution cell; `line` counts from 1 within the cell."""

    grade_id: str
    name: str
    line: int

    @property
    def message(self) -> str:
        """Return the sentence for the learner."""
        return (
            f"this exercise asks you to write it without {self.name}, "
            f"which stands in line {self.line} of cell {self.grade_id}"
        )


def find_forbidden(notebook: NotebookNode) -> list[Forbidden]:
    """Return the forbidden names that solution cells use, by the notebook's `coursekit.forbidden` metadata.

    Seen are imports, `from` imports, aliases (also of other cells), attribute chains such as
    `torch.optim.SGD`, and `importlib.import_module` with a literal name. One finding a name and cell.
    """
    forbidden = tuple(notebook.metadata.get("coursekit", {}).get("forbidden", []))
    aliases: dict[str, str] = {}
    found: dict[tuple[str, str], Forbidden] = {}
    for cell in notebook.cells if forbidden else []:
        tree = parse_cell(cell.source) if cell.cell_type == "code" else None
        if tree is None:
            continue
        reached = _reached_names(tree, aliases)
        if not is_solution_code(cell):
            continue
        grade_id = grading_words(cell)["grade_id"]
        for name, line in reached:
            rule = next((rule for rule in forbidden if name == rule or name.startswith(rule + ".")), None)
            if rule:
                found.setdefault((grade_id, rule), Forbidden(grade_id, rule, line))
    return list(found.values())


def block_forbidden(notebook: NotebookNode) -> tuple[NotebookNode, list[Forbidden]]:
    """Return a copy in which solution cells with a forbidden name raise its message, and the findings.

    What such a cell would have defined still exists, and raises the same message when a test calls it.
    """
    findings = find_forbidden(notebook)
    messages: dict[str, str] = {}
    for finding in findings:
        messages.setdefault(finding.grade_id, finding.message)
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if is_solution_code(cell) and grading_words(cell)["grade_id"] in messages:
            cell.source = _raising(cell.source, messages[grading_words(cell)["grade_id"]])
    return copy, findings


def is_solution_code(cell: NotebookNode) -> bool:
    """Return whether a learner's code is expected in this cell."""
    return cell.cell_type == "code" and bool(grading_words(cell).get("solution"))


def parse_cell(source: str) -> ast.Module | None:
    """Return the syntax tree of a cell, IPython's magics and shell lines blanked, or None where it is
    not Python.
    """
    if source.lstrip().startswith("%%"):
        return None
    # Not \s, which matches newlines as well: a run of empty lines would be looked through from each of them.
    blanked = re.sub(r"^([^\S\n]*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        with _PARSING:
            return ast.parse(blanked)
    # The last two: nested deeper than Python can go, here as where the cell is run.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def bound_names(tree: ast.Module) -> set[str]:
    """Return the names that a cell binds at its top level."""
    names: set[str] = set()
    for node in _top_level(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(item.asname or item.name).split(".")[0] for item in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _top_level(tree: ast.Module) -> list[ast.AST]:
    """Return the nodes of a cell that run in its own scope: not what stands inside functions and classes."""
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        own_scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
        if not isinstance(node, own_scope | comprehension):
            waiting += ast.iter_child_nodes(node)
    return nodes


def _reached_names(tree: ast.Module, aliases: dict[str, str]) -> list[tuple[str, int]]:
    """Return the full module names that a cell reaches, with lines; `aliases` learns its imports."""
    reached: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                reached.append((item.name, node.lineno))
                top = item.name.split(".")[0]
                aliases[item.asname or top] = item.name if item.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for item in node.names:
                full = f"{node.module}.{item.name}" if item.name != "*" else node.module
                reached.append((full, node.lineno))
                aliases[item.asname or item.name] = full
    # Only whole chains: to follow each of their links would take the square of a chain's length.
    links = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in links:
            dotted = _dotted(node)
            first, _, rest = dotted.partition(".")
            if first in aliases:
                reached.append((aliases[first] + (f".{rest}" if rest else ""), node.lineno))
        elif isinstance(node, ast.Call) and _dotted(node.func) in _IMPORT_CALLS and node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                reached.append((node.args[0].value, node.lineno))
    return sorted(reached, key=lambda pair: pair[1])


def _dotted(node: ast.AST) -> str:
    """Return "a.b.c" for such an expression, "" for another."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _raising(source: str, message: str) -> str:
    tree = parse_cell(source)
    names = sorted(bound_names(tree)) if tree else []
    stubs = [f"def {name}(*_, **__): raise ImportError({message!r})" for name in names]
    return "\n".join([*stubs, f"raise ImportError({message!r})"])
