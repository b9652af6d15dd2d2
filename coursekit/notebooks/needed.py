"""Which of the cells that a learner added an answer cannot do without."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from coursekit.notebooks.forbidden import bound_names, read_cell

# "given" came with the notebook, "answer" is a solution cell, "test" a test cell, "added" all other code.
Kind = Literal["given", "answer", "test", "added"]
_ALWAYS_THERE = frozenset(dir(builtins)) | {"get_ipython", "display", "In", "Out", "_", "__name__"}


@dataclass(frozen=True)
class Needs:
    """What the answers of a notebook need beside themselves.

    cells: positions of the added cells without which they do not work.
    from_tests: names that they use and that only test cells bind, which run elsewhere in grading.
    """

    cells: frozenset[int]
    from_tests: frozenset[str]


@dataclass(frozen=True)
class _Cell:
    """A cell's kind, the names that it binds, defines as functions, uses, and leaves as stubs."""

    kind: Kind
    binds: frozenset[str] = field(default_factory=frozenset)
    defines: frozenset[str] = field(default_factory=frozenset)
    uses: frozenset[str] = field(default_factory=frozenset)
    stubs: frozenset[str] = field(default_factory=frozenset)


def find_needs(cells: Sequence[tuple[Kind, str]]) -> Needs:
    """Return what the answers need of a notebook's code cells, given as kinds and sources in their order.

    An added cell is needed if it binds a name that an answer uses and that nothing else binds, if it defines
    a function that the tests call and no answer below it does, or if another needed cell needs it. All
    others are somebody's experiments.

    >>> helper, scratch = ("added", "def half(x): return x / 2"), ("added", "print(area(3))")
    >>> find_needs([helper, ("answer", "def area(r): return half(r)"), scratch]).cells
    frozenset({0})
    """
    read = [_read(kind, source) for kind, source in cells]
    given = {name for cell in read if cell.kind == "given" for name in cell.binds} | _ALWAYS_THERE
    of_tests = {name for cell in read if cell.kind == "test" for name in cell.binds}
    asked_for = {name for cell in read if cell.kind == "test" for name in cell.uses} - of_tests
    asked_for |= {name for cell in read if cell.kind == "answer" for name in cell.binds | cell.stubs}
    needed = {i for i, cell in enumerate(read) if _is_answer(cell, read[i + 1 :], asked_for - given)}
    while True:
        kept = [cell for i, cell in enumerate(read) if cell.kind == "answer" or i in needed]
        missing = {name for cell in kept for name in cell.uses} - given
        missing -= {name for cell in kept for name in cell.binds | cell.stubs}
        more = {i for i, cell in enumerate(read) if cell.kind == "added" and cell.binds & missing} - needed
        if not more:
            return Needs(frozenset(needed), frozenset(missing & of_tests))
        needed |= more


def _is_answer(cell: _Cell, below: Sequence[_Cell], asked_for: set[str]) -> bool:
    """Return whether an added cell defines what the tests ask for, and no answer below it does."""
    names = cell.defines & asked_for if cell.kind == "added" else set()
    return any(not any(name in other.binds for other in below if other.kind == "answer") for name in names)


def _read(kind: Kind, source: str) -> _Cell:
    text, tree = read_cell(source)
    if tree is None:
        return _Cell(kind)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    functions += [node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
    written = {node.name for node in functions if not _is_stub(node)}
    stubs = {node.name for node in functions} - written
    lambdas = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda | ast.Name | ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    binds = bound_names(tree) - stubs
    defines = written | (lambdas & binds)
    return _Cell(kind, frozenset(binds), frozenset(defines), frozenset(_used(text)), frozenset(stubs))


def _is_stub(node: ast.AST) -> bool:
    """Return whether a function is as it was given: a docstring at most, and `raise NotImplementedError`."""
    if not isinstance(node, ast.FunctionDef):
        return False
    last = node.body[-1]
    documented = len(node.body) == 2 and isinstance(node.body[0], ast.Expr)
    raised = last.exc if isinstance(last, ast.Raise) and (documented or len(node.body) == 1) else None
    raised = raised.func if isinstance(raised, ast.Call) else raised
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def _used(text: str) -> set[str]:
    """Return the names that a cell looks up among the notebook's global names."""
    try:
        waiting = [symtable.symtable(text, "cell", "exec")]
    # Nested too deep, or no program although it has a syntax tree, such as a return outside of functions.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    used = set()
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        symbols = [symbol for symbol in table.get_symbols() if symbol.is_referenced()]
        is_top = table.get_type() == "module"
        used |= {symbol.get_name() for symbol in symbols if is_top or symbol.is_global()}
    return used
