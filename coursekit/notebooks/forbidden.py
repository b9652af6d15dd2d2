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

ADDED = "added"
"""Key in the `coursekit` metadata of a learner's own cell that an answer needs: what it is called."""

# Python counts the depth of a tree for all threads together: two that parse at once may raise SystemError
# (python/cpython issue 106905). Grading parses in several threads.
_PARSING = threading.Lock()
_PYTHON_MAGICS = ("time", "capture", "prun")  # that run the cell's code in the notebook itself
# Magics, shell lines and questions. Not \s, which matches newlines as well: a run of empty lines would be
# looked through from each of them.
_IPYTHON_LINE = re.compile(
    r"^([^\S\n]*)(?:[\w, ]{1,99}=[^\S\n]*)?(?:[%!?].*|[\w.]{1,99}\?\??[^\S\n]*)$", re.MULTILINE
)
_IMPORT_CALLS = ("__import__", "import_module", "importlib.import_module")


@dataclass(frozen=True)
class Forbidden:
    """A forbidden name in a learner's cell; `line` counts from 1 within the cell."""

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
    """Return the forbidden names that a learner's cells use, by the notebook's `coursekit.forbidden` list.

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
        grade_id = _answers_name(cell)
        for name, line in reached if grade_id else []:
            rule = next((rule for rule in forbidden if name == rule or name.startswith(rule + ".")), None)
            if rule:
                found.setdefault((grade_id, rule), Forbidden(grade_id, rule, line))
    return list(found.values())


def block_forbidden(notebook: NotebookNode) -> tuple[NotebookNode, list[Forbidden]]:
    """Return a copy in which a learner's cells with a forbidden name raise its message, and the findings.

    What such a cell would have defined still exists, and raises the same message when a test calls it.
    """
    findings = find_forbidden(notebook)
    messages: dict[str, str] = {}
    for finding in findings:
        messages.setdefault(finding.grade_id, finding.message)
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if _answers_name(cell) in messages:
            cell.source = _raising(cell.source, messages[_answers_name(cell)])
    return copy, findings


def is_solution_code(cell: NotebookNode) -> bool:
    """Return whether a learner's code is expected in this cell."""
    return cell.cell_type == "code" and bool(grading_words(cell).get("solution"))


def _answers_name(cell: NotebookNode) -> str:
    """Return what a cell of the learner's work is called, or ""."""
    if is_solution_code(cell):
        return grading_words(cell)["grade_id"]
    return str(cell.metadata.get("coursekit", {}).get(ADDED, "")) if cell.cell_type == "code" else ""


def parse_cell(source: str) -> ast.Module | None:
    """Return the syntax tree of a cell, IPython's magics and shell lines blanked, or None where it is
    not Python.
    """
    return read_cell(source)[1]


def read_cell(source: str) -> tuple[str, ast.Module | None]:
    """Return a cell as Python, without what is IPython's alone, and its syntax tree, if it has one."""
    text = source
    if source.lstrip().startswith("%%"):
        magic, _, text = source.lstrip().partition("\n")
        if magic[2:].split(" ")[0].strip() not in _PYTHON_MAGICS:
            return source, None
    tree = _parse(text)
    if tree is None:  # only now: a line of an expression may begin with % as well
        text = _IPYTHON_LINE.sub(r"\1pass", text)
        tree = _parse(text)
    return text, tree


def _parse(text: str) -> ast.Module | None:
    try:
        with _PARSING:
            return ast.parse(text)
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
