"""A Python expression in JavaScript; whatever is not known is refused."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence

from coursekit.plan.javascript_names import Scope, argument_names, js_name, refuse

BINARY = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
}
_COMPARISON = {ast.Eq: "eq", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
_ONE_ARGUMENT = {"abs", "bool", "float", "int", "round"}
_MANY_ARGUMENTS = {"min", "max", "sum"}
_MATH_CALLS = {"ceil", "exp", "floor", "log", "log2", "log10", "sqrt"}
_MATH_NAMES = {"inf": "Infinity", "pi": "Math.PI", "e": "Math.E"}
BUILTINS = {*_ONE_ARGUMENT, *_MANY_ARGUMENTS, "dict", "math", "range", "len"}


def joined(values: Sequence[ast.expr], scope: Scope) -> str:
    """Return expressions with commas between them."""
    return ", ".join(expression(value, scope) for value in values)


def condition(node: ast.expr, scope: Scope) -> str:
    """Return an expression as a truth value, as Python sees it."""
    return f"py.truth({expression(node, scope)})"


def expression(node: ast.expr, scope: Scope) -> str:
    """Return an expression."""
    match node:
        case ast.Constant(value=value):
            return _constant(node, value, scope)
        case ast.Name(id=name):
            return _name(node, name, scope)
        case ast.Attribute(value=ast.Name(id="math"), attr=name) if name in _MATH_NAMES:
            return _MATH_NAMES[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return f"py.{BINARY[type(op)]}({joined([left, right], scope)})"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"py.neg({expression(operand, scope)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"!{condition(operand, scope)}"
        case ast.BoolOp(op=op, values=[*before, last]):
            word, text = "and" if isinstance(op, ast.And) else "or", expression(last, scope)
            for value in reversed(before):
                text = f"py.{word}({expression(value, scope)}, () => {text})"
            return text
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            return f"({condition(test, scope)} ? {expression(body, scope)} : {expression(otherwise, scope)})"
        case ast.Compare():
            return _comparisons(node, scope)
        case ast.Dict(keys=keys, values=values):
            return f"new Map([{', '.join(_entry(k, v, scope) for k, v in zip(keys, values, strict=True))}])"
        case ast.DictComp(key=key, value=value, generators=[generator]):
            source, names, inside = _generator(generator, scope)
            return f"new Map({source}.map(({names}) => [{joined([key, value], inside)}]))"
        case ast.Subscript(value=value, slice=key):
            return f"py.item({joined([value, key], scope)})"
        case ast.JoinedStr(values=parts):
            return " + ".join(['""', *(_part(part, scope) for part in parts)])
        case ast.Call():
            return _call(node, scope)
    raise refuse(node, scope.file, "arithmetic, a comparison, a dict or a call of a formula")


def _constant(node: ast.expr, value: object, scope: Scope) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int | float) and float(value) == value:
        return repr(value)
    raise refuse(node, scope.file, "text, a truth value, None or a number that a double holds exactly")


def _name(node: ast.expr, name: str, scope: Scope) -> str:
    if name not in scope.locals and name not in scope.constants:
        raise refuse(node, scope.file, "an argument, a name assigned before, or a constant")
    return js_name(name)


def _comparisons(node: ast.Compare, scope: Scope) -> str:
    if any(not isinstance(middle, ast.Name | ast.Constant) for middle in node.comparators[:-1]):
        raise refuse(node, scope.file, "a name or a number in the middle of a comparison")
    sides = [node.left, *node.comparators]
    pairs = zip(sides, node.ops, sides[1:], strict=False)
    return "(" + " && ".join(_comparison(node, left, op, right, scope) for left, op, right in pairs) + ")"


def _comparison(node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr, scope: Scope) -> str:
    match op, right:
        case ((ast.Is() | ast.IsNot()), ast.Constant(value=None)):
            return f"{expression(left, scope)} {'===' if isinstance(op, ast.Is) else '!=='} null"
        case ((ast.In() | ast.NotIn()), _):
            inside = (
                f"[{joined(right.elts, scope)}]"
                if isinstance(right, ast.Tuple | ast.List | ast.Set)
                else expression(right, scope)
            )
            return f"{'!' * isinstance(op, ast.NotIn)}py.within({inside}, {expression(left, scope)})"
        case ast.NotEq(), _:
            return f"!py.eq({joined([left, right], scope)})"
        case _ if type(op) in _COMPARISON:
            return f"py.{_COMPARISON[type(op)]}({joined([left, right], scope)})"
    raise refuse(node, scope.file, "== != < <= > >=, `in`, or `is None`")


def _entry(key: ast.expr | None, value: ast.expr, scope: Scope) -> str:
    if key is None:
        return f"...{expression(value, scope)}"
    if isinstance(key, ast.Constant) and type(key.value) not in (str, int):
        raise refuse(key, scope.file, "text or whole numbers as keys")
    return f"[{joined([key, value], scope)}]"


def _generator(node: ast.comprehension, scope: Scope) -> tuple[str, str, Scope]:
    """Return what a comprehension runs over, as an array, the names that it binds, and the scope inside."""
    match node.target:
        case ast.Name(id=name):
            names = [name]
        case ast.Tuple(elts=targets) if all(isinstance(target, ast.Name) for target in targets):
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        case _:
            raise refuse(node.target, scope.file, "names")
    bound = f"[{', '.join(map(js_name, names))}]" if len(names) > 1 else js_name(names[0])
    inside = scope.within(set(names))
    source = f"[...{expression(node.iter, scope)}]"
    for test in node.ifs:
        source += f".filter(({bound}) => {condition(test, inside)})"
    return source, bound, inside


def _part(node: ast.expr, scope: Scope) -> str:
    """Return a part of an f-string: its text, or a value written without a format."""
    match node:
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return f"py.text({expression(value, scope)})"
        case ast.Constant(value=str()):
            return expression(node, scope)
    raise refuse(node, scope.file, "a value without a format")


def _call(node: ast.Call, scope: Scope) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in scope.functions:
            return f"{js_name(name)}({_arguments(node, scope.functions[name], scope)})"
        case ast.Call(func=ast.Name(id=name), args=[value], keywords=[]) if name in _ONE_ARGUMENT:
            return f"py.{'truth' if name == 'bool' else name}({expression(value, scope)})"
        case ast.Call(func=ast.Name(id=name), args=values, keywords=[]) if name in _MANY_ARGUMENTS:
            return f"py.{name}({_values(node, values, scope)})"
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="math"), attr=name), args=[value], keywords=[]
        ) if name in _MATH_CALLS:
            return f"py.{name}({expression(value, scope)})"
        case ast.Call(func=ast.Attribute(value=table, attr="items"), args=[], keywords=[]):
            return f"{expression(table, scope)}.entries()"
        case ast.Call(func=ast.Attribute(value=table, attr="values" | "keys" as name), args=[], keywords=[]):
            return f"{expression(table, scope)}.{name}()"
        case ast.Call(func=ast.Attribute(value=table, attr="get"), args=[_] | [_, _] as values, keywords=[]):
            return f"py.get({joined([table, *values], scope)})"
    raise refuse(node, scope.file, "a call of a formula, of `math`, or of a builtin such as min")


def _values(node: ast.Call, values: Sequence[ast.expr], scope: Scope) -> str:
    """Return the array that min, max or sum looks at."""
    match values:
        case [ast.GeneratorExp(elt=element, generators=[generator])]:
            source, bound, inside = _generator(generator, scope)
            return f"{source}.map(({bound}) => {expression(element, inside)})"
        case [ast.Tuple(elts=elements) | ast.List(elts=elements)]:
            return f"[{joined(elements, scope)}]"
        case [single]:
            return expression(single, scope)
        case [_, _, *_] if not (isinstance(node.func, ast.Name) and node.func.id == "sum"):
            return f"[{joined(values, scope)}]"
    raise refuse(node, scope.file, "values, or one generator over one dict")


def _arguments(call: ast.Call, function: ast.FunctionDef, scope: Scope) -> str:
    """Return a call's arguments by position, `undefined` where the default holds."""
    names = argument_names(function)
    num_positional = len(names) - len(function.args.kwonlyargs)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if len(call.args) > num_positional or {*given} & {*names[: len(call.args)]} or not {*given} <= {*names}:
        raise refuse(call, scope.file, f"the arguments of {function.name}: {', '.join(names)}")
    values = [expression(value, scope) for value in call.args]
    values += [expression(given[n], scope) if n in given else "undefined" for n in names[len(values) :]]
    return ", ".join(values)
