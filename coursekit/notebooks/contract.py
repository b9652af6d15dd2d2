"""The contract of test cells, read from their syntax."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coursekit.notebooks.cell_names import CellNames, collect_names, coursekit_imports
from coursekit.notebooks.forbidden import bound_names, parse_cell
from coursekit.notebooks.source import ExerciseSource, SourceCell

_BUILTINS = set(dir(builtins)) | {"__name__"}
_PROCESS_SEEDS = {
    "torch.manual_seed", "torch.random.manual_seed", "np.random.seed", "numpy.random.seed", "random.seed",
    "tf.random.set_seed", "tensorflow.random.set_seed", "keras.utils.set_random_seed",
}  # fmt: skip
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Breach:
    """A rule that a cell breaks: where, what, and what to do about it."""

    path: Path
    line: int
    grade_id: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.grade_id}: {self.problem}; {self.fix}"


def contract_breaches(exercise: ExerciseSource) -> list[Breach]:
    """Return every way in which the locked and test cells of an exercise break the contract of
    CONTRIBUTING.md.

    What syntax cannot show (a value that is not plain, an argument changed in place) `test_exercises.py`
    finds by running the reference.
    """
    names = collect_names(exercise)
    breaches: list[Breach] = []
    for cell in exercise.of_kind("locked", "tests"):
        tree = parse_cell(cell.source)
        if tree is None:
            breaches.append(
                Breach(exercise.path, cell.line, cell.grade_id, "not plain Python", "use no cell magic")
            )
            continue
        check = _check_tests if cell.kind == "tests" else _check_locked
        found = {(node_line, problem): fix for node_line, problem, fix in check(tree, cell, names)}
        breaches += [
            Breach(exercise.path, cell.line + line, cell.grade_id, problem, fix)
            for (line, problem), fix in sorted(found.items())
        ]
    return breaches


Finding = tuple[int, str, str]


def _check_locked(tree: ast.Module, cell: SourceCell, names: CellNames) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names.learner:
            if node.id not in names.locked:
                yield (
                    node.lineno,
                    f"a locked cell uses the learner's {node.id}",
                    "locked cells also run where the learner's code is not; move it into a test",
                )


def _check_tests(tree: ast.Module, cell: SourceCell, names: CellNames) -> Iterator[Finding]:
    own = bound_names(tree)
    for name in sorted(own & set(names.learner)):
        yield 1, f"the test binds the learner's name {name}", "choose another name in the test"
    probes = _probe_definitions(tree)
    yield from _check_probe_calls(tree, probes, names)
    for definition in probes.values():
        yield from _check_probe_body(definition, own, names)
    inside = {id(node) for definition in probes.values() for node in ast.walk(definition)}
    outside = [node for node in ast.walk(tree) if id(node) not in inside]
    yield from _check_names(outside, tree, own, cell, names)
    yield from _check_calls(outside, own, names)
    yield from _check_coursekit(outside, names)
    yield from _check_exceptions(outside, names)
    yield from _check_seeds(outside)


def _probe_definitions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    called = {
        node.args[0].id
        for node in ast.walk(tree)
        if _is_probe_call(node) and node.args and isinstance(node.args[0], ast.Name)  # type: ignore[attr-defined]
    }
    return {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in called
    }


def _is_probe_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "probe"


def _check_probe_calls(
    tree: ast.Module, probes: dict[str, ast.FunctionDef], names: CellNames
) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not _is_probe_call(node):
            continue
        function = node.args[0] if node.args else None  # type: ignore[attr-defined]
        if not isinstance(function, ast.Name) or function.id not in probes:
            yield (
                node.lineno,
                "probe() is given something else than a function of this cell",  # type: ignore[attr-defined]
                "write the probe with def at the top level of the same cell",
            )
        if node.keywords:  # type: ignore[attr-defined]
            yield node.lineno, "probe() takes no keyword arguments", "pass them in order"  # type: ignore[attr-defined]


def _check_probe_body(definition: ast.FunctionDef, own: set[str], names: CellNames) -> Iterator[Finding]:
    name = definition.name
    if definition.decorator_list:
        yield definition.lineno, f"probe {name} is decorated", "a probe travels as its plain source"
    if definition.args.defaults or any(definition.args.kw_defaults):
        yield definition.lineno, f"probe {name} has default values", "pass every argument from the test"
    annotations = {id(part) for node in ast.walk(definition) for part in _annotation_nodes(node)}
    local = _bound_anywhere(definition) - {name}
    for node in ast.walk(definition):
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield node.lineno, f"probe {name} declares {' '.join(node.names)} global", "return it instead"
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or id(node) in annotations:
            continue
        if node.id in local or node.id in names.learner or node.id in names.locked or node.id in _BUILTINS:
            continue
        what = "another name of the test cell" if node.id in own else "a name that is not there"
        yield (
            node.lineno,
            f"probe {name} uses {node.id}, {what}",
            "import it inside or pass it as an argument",
        )


def _annotation_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
        if part is not None:
            yield from ast.walk(part)


def _bound_anywhere(node: ast.AST) -> set[str]:
    """Return every name bound inside a function: parameters, assignments, imports, nested definitions."""
    names: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            names.add(part.arg)
        elif isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            names.add(part.id)
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            names |= {(item.asname or item.name).split(".")[0] for item in part.names}
        elif isinstance(part, ast.ExceptHandler) and part.name:
            names.add(part.name)
    return names


def _check_names(
    outside: list[ast.AST], tree: ast.Module, own: set[str], cell: SourceCell, names: CellNames
) -> Iterator[Finding]:
    known = own | _bound_anywhere(tree) | set(names.learner) | names.locked | _BUILTINS
    for node in outside:
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or node.id in known:
            continue
        if node.id in names.of_tests:
            other = names.of_tests[node.id]
            yield (
                node.lineno,
                f"uses {node.id} of test cell {other}",
                "define it again here or in a locked cell",
            )
        elif node.id in names.free:
            yield (
                node.lineno,
                f"uses {node.id} of an unmarked cell",
                "the learner may change it: mark that cell locked",
            )
        else:
            yield (
                node.lineno,
                f"uses {node.id}, which no locked or solution cell defines",
                "import or define it here",
            )


def _check_calls(outside: list[ast.AST], own: set[str], names: CellNames) -> Iterator[Finding]:
    """Learner's names outside probes are called, with plain data, and nothing else."""
    learner = set(names.learner) - names.locked - own
    called = {id(node.func): node for node in outside if isinstance(node, ast.Call)}
    for node in outside:
        if not isinstance(node, ast.Name) or node.id not in learner or not isinstance(node.ctx, ast.Load):
            continue
        call = called.get(id(node))
        if call is None:
            yield (
                node.lineno,
                f"uses the learner's {node.id} without calling it",
                "call it, or use it inside a probe",
            )
            continue
        if names.learner[node.id] == "class":
            yield (
                node.lineno,
                f"makes an object of the learner's class {node.id}",
                "objects do not travel: use a probe",
            )
        for argument in [*call.args, *(word.value for word in call.keywords)]:
            yield from _check_argument(argument, node.id, own, learner)


def _check_argument(argument: ast.expr, name: str, own: set[str], learner: set[str]) -> Iterator[Finding]:
    calls = {id(node.func) for node in ast.walk(argument) if isinstance(node, ast.Call)}
    for node in ast.walk(argument):
        if isinstance(node, ast.Lambda | ast.GeneratorExp):
            what = "a lambda" if isinstance(node, ast.Lambda) else "a generator"
            yield (
                node.lineno,
                f"passes {what} to the learner's {name}",
                "only plain data travels: use a probe",
            )
        elif isinstance(node, ast.Name) and node.id in learner and id(node) not in calls:
            yield (
                node.lineno,
                f"passes the learner's {node.id} to {name}",
                "only plain data travels: use a probe",
            )


def _check_coursekit(outside: list[ast.AST], names: CellNames) -> Iterator[Finding]:
    fix = "compute the expected value by another route; coursekit may be used inside a probe"
    for node in outside:
        if isinstance(node, ast.Import | ast.ImportFrom) and coursekit_imports(node):
            yield node.lineno, "imports coursekit in a test", fix
        if isinstance(node, ast.Name) and node.id in names.locked_coursekit:
            yield node.lineno, f"uses coursekit's {node.id} outside a probe", fix


def _check_seeds(outside: list[ast.AST]) -> Iterator[Finding]:
    """A seed of the process would be shared with the learner's code in a notebook, and not in grading."""
    for node in outside:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _PROCESS_SEEDS:
            yield (
                node.lineno,
                f"seeds the whole process with {ast.unparse(node.func)}",
                "use a generator of the test's own, or seed inside a probe",
            )


def _check_exceptions(outside: list[ast.AST], names: CellNames) -> Iterator[Finding]:
    """The learner's exceptions stay on the learner's side: what is raised is no plain data."""
    for node in outside:
        if not isinstance(node, ast.Try):
            continue
        inside = (part for statement in node.body for part in ast.walk(statement))
        for part in inside:
            if (
                isinstance(part, ast.Call)
                and isinstance(part.func, ast.Name)
                and part.func.id in names.learner
            ):
                yield (
                    node.lineno,
                    f"catches what the learner's {part.func.id} raises",
                    "catch it inside a probe",
                )
