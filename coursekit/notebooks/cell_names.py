"""Which cells of an exercise bind which names."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from coursekit.notebooks.forbidden import bound_names, parse_cell
from coursekit.notebooks.source import ExerciseSource


@dataclass(frozen=True)
class CellNames:
    """Which cells bind which names: the learner's functions and classes, locked cells, other test cells."""

    learner: dict[str, str]  # name -> "function", "class" or "value"
    locked: frozenset[str]
    locked_coursekit: frozenset[str]
    of_tests: dict[str, str]  # name -> grade_id of the test cell that binds it
    free: frozenset[str]


def collect_names(exercise: ExerciseSource) -> CellNames:
    """Return the names that the cells of an exercise bind at their top level."""
    learner: dict[str, str] = {}
    locked: set[str] = set()
    from_coursekit: set[str] = set()
    of_tests: dict[str, str] = {}
    free: set[str] = set()
    for cell in exercise.cells:
        tree = parse_cell(cell.source) if cell.cell_type == "code" else None
        if tree is None:
            continue
        bound = bound_names(tree)
        if cell.kind == "solution":
            learner |= {
                name: kind for name, kind in _learner_kinds(tree, bound).items() if name not in locked
            }
        elif cell.kind == "locked":
            locked |= bound
            from_coursekit |= coursekit_imports(tree)
        elif cell.kind == "tests":
            of_tests |= dict.fromkeys(bound, cell.grade_id)
        else:
            free |= bound
    return CellNames(learner, frozenset(locked), frozenset(from_coursekit), of_tests, frozenset(free))


def solution_names(sources: Iterable[str]) -> frozenset[str]:
    r"""Return the names that solution cells bind at their top level, other than by importing them.

    >>> sorted(solution_names(["import math\n\ndef area(r): return math.pi * r**2", "ANSWER = 3"]))
    ['ANSWER', 'area']
    """
    trees = filter(None, map(parse_cell, sources))
    return frozenset(name for tree in trees for name in _learner_kinds(tree, bound_names(tree)))


def _learner_kinds(tree: ast.Module, bound: set[str]) -> dict[str, str]:
    """Return what each name of a solution cell is; its imports are not the learner's work and left out."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = bound_names(ast.Module(body=imports, type_ignores=[]))
    kinds = {node.name: "class" for node in tree.body if isinstance(node, ast.ClassDef)}
    kinds |= {node.name: "function" for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name: kinds.get(name, "value") for name in bound - imported}


def coursekit_imports(tree: ast.AST) -> set[str]:
    """Return names that a cell binds by importing from coursekit, its notebooks and errors excepted."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [(item.name, item.asname or item.name.split(".")[0]) for item in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [(f"{node.module}.{item.name}", item.asname or item.name) for item in node.names]
        else:
            continue
        allowed = ("coursekit.notebooks", "coursekit.errors", "coursekit.units")
        names |= {
            name
            for module, name in modules
            if module.split(".")[0] == "coursekit" and not module.startswith(allowed)
        }
    return names
