"""A Python function in JavaScript, statement by statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from coursekit.plan.javascript_expressions import BINARY, BUILTINS, condition, expression, joined
from coursekit.plan.javascript_names import Scope, argument_names, js_name, refuse


def constant_lines(node: ast.Assign | ast.AnnAssign, scope: Scope) -> Iterator[str]:
    """Yield a constant of a file."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    assert isinstance(target, ast.Name)
    if node.value is None:
        raise refuse(node, scope.file, "a value")
    yield f"const {js_name(target.id)} = {expression(node.value, scope)};"


def function_lines(node: ast.FunctionDef, scope: Scope) -> Iterator[str]:
    """Yield the lines of a function."""
    if node.decorator_list or node.args.vararg or node.args.kwarg:
        raise refuse(node, scope.file, "a function without decorators, * and **")
    names = argument_names(node)
    assigned = {n.id for n in _own_nodes(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if shadowed := BUILTINS & {*names, *assigned}:
        raise refuse(node, scope.file, f"other names than the builtin {', '.join(sorted(shadowed))}")
    arguments = [
        js_name(name) + (f" = {expression(default, scope)}" if default else f' = py.missing("{name}")')
        for name, default in zip(names, _defaults(node.args), strict=True)
    ]
    yield f"function {js_name(node.name)}({', '.join(arguments)}) {{"
    inside = scope.within({*names, *assigned})
    if new := sorted(assigned - set(names)):
        yield f"  let {', '.join(map(js_name, new))};"
    yield from _block(node.body, inside)
    yield "  return null;"
    yield "}"


def _own_nodes(node: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield the nodes of a function but those of comprehensions, whose names are their own."""
    pending: list[ast.AST] = list(node.body)
    while pending:
        current = pending.pop()
        yield current
        if not isinstance(current, ast.DictComp | ast.GeneratorExp):
            pending += ast.iter_child_nodes(current)


def _defaults(arguments: ast.arguments) -> list[ast.expr | None]:
    positional = [*arguments.posonlyargs, *arguments.args]
    without = len(positional) - len(arguments.defaults)
    return [*[None] * without, *arguments.defaults, *arguments.kw_defaults]


def _block(body: Sequence[ast.stmt], scope: Scope, indent: str = "  ") -> Iterator[str]:
    for node in body:
        yield from (indent + line for line in _statement(node, scope))


def _statement(node: ast.stmt, scope: Scope) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return
        case ast.Return(value=value):
            yield f"return {expression(value, scope) if value else 'null'};"
        case ast.Assign(targets=[target], value=value):
            yield from _assignment(target, value, scope)
        case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
            yield from _assignment(target, value, scope)
        case ast.AugAssign(target=ast.Name(id=name), op=op, value=value) if type(op) in BINARY:
            yield f"{js_name(name)} = py.{BINARY[type(op)]}({js_name(name)}, {expression(value, scope)});"
        case ast.If(test=test, body=body, orelse=otherwise):
            yield f"if ({condition(test, scope)}) {{"
            yield from _block(body, scope)
            if otherwise:
                yield "} else {"
                yield from _block(otherwise, scope)
            yield "}"
        case _:
            raise refuse(node, scope.file, "an assignment, if or return")


def _assignment(target: ast.expr, value: ast.expr, scope: Scope) -> Iterator[str]:
    match target, value:
        case ast.Name(id=name), _:
            yield f"{js_name(name)} = {expression(value, scope)};"
        case ast.Subscript(value=ast.Name(id=name), slice=key), _:
            yield f"{js_name(name)}.set({expression(key, scope)}, {expression(value, scope)});"
        case ast.Tuple(elts=names), ast.Tuple(elts=values) if len(names) == len(values) and all(
            isinstance(n, ast.Name) for n in names
        ):
            left = ", ".join(js_name(n.id) for n in names if isinstance(n, ast.Name))
            yield f"[{left}] = [{joined(values, scope)}];"
        case _:
            raise refuse(target, scope.file, "an assignment to names, or to an item of a dict")
