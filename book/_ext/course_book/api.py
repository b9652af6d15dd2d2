"""The API page: every public name of our packages, with its signature and its docstring."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_LABEL = re.compile(r"^(Args|Where|Returns?|Raises|Yields|Attributes|Source|Example|Note):[ \t]*(.*)$")


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("api-reference", ApiReference)


class ApiReference(SphinxDirective):
    """A section for each module that the body names, one a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [self._section(importlib.import_module(line.strip())) for line in self.content if line.strip()]

    def _section(self, module: ModuleType) -> nodes.section:
        name = module.__name__
        for path in _sources(module):
            self.env.note_dependency(str(path))
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        section += nodes.title("", "", nodes.literal("", name))
        self.state.document.note_implicit_target(section)
        lines = [*_markdown(inspect.getdoc(module) or ""), ""]
        for public in public_names(module):
            lines += entry(f"{name}.{public}", getattr(module, public))
        text = StringList(lines, source=f"docstrings of {name}")
        self.state.nested_parse(text, 0, section)
        return section


def public_names(module: ModuleType) -> list[str]:
    """Return the names that a module offers: those of its stub, or what it defines itself."""
    if hasattr(module, "__path__"):
        return sorted(module.__all__, key=_order)
    return sorted(
        (
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and not inspect.ismodule(value)
            and getattr(value, "__module__", module.__name__) == module.__name__
            and name != "annotations"
        ),
        key=_order,
    )


def entry(name: str, value: Any) -> list[str]:
    """Return the MyST lines that describe one public object, its public methods included."""
    if inspect.isclass(value):
        return _class(name, value)
    if callable(value):
        return _block("py:function", f"{name}{_signature(value)}", _doc(value))
    kept = repr(value)
    shown = f"`{kept}`" if len(kept) <= 60 and "`" not in kept else f"of type `{type(value).__name__}`"
    return _block(
        "py:data", name, [f"Value: {shown}" if kept == shown.strip("`") else f"A constant {shown}."]
    )


def _class(name: str, value: type) -> list[str]:
    kind = "py:exception" if issubclass(value, BaseException) else "py:class"
    if issubclass(value, BaseException) or is_dataclass(value) or "__init__" in vars(value):
        name_and_signature = f"{name}{_signature(value)}"
    else:
        name_and_signature = name
    lines = _doc(value)
    for member, inside in vars(value).items():
        if member.startswith("_") or not _described(inside):
            continue
        if isinstance(inside, property) or not callable(getattr(value, member)):
            lines += _block("py:property", f"{name}.{member}", _doc(inside), fence=":" * 4)
        else:
            signature = _signature(getattr(value, member))
            lines += _block("py:method", f"{name}.{member}{signature}", _doc(inside), fence=":" * 4)
    return _block(kind, name_and_signature, lines)


def _described(value: Any) -> bool:
    inner = getattr(value, "__func__", value)
    is_member = inspect.isfunction(inner) or isinstance(value, property) or hasattr(value, "func")
    return bool(is_member and inspect.getdoc(value))


def _block(directive: str, title: str, body: list[str], fence: str = ":" * 6) -> list[str]:
    return [f"{fence}{{{directive}}} {title}", "", *body, "", fence, ""]


def _signature(value: Any) -> str:
    """Return the signature as it stands in the source: annotations are strings there, defaults have names."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    plain = [
        parameter.replace(
            annotation=_as_written(parameter.annotation), default=_as_written(parameter.default, quote=True)
        )
        for parameter in signature.parameters.values()
    ]
    returned = inspect.Signature.empty if inspect.isclass(value) else _as_written(signature.return_annotation)
    return str(signature.replace(parameters=plain, return_annotation=returned)).replace("\n", " ")


class _Words:
    """Stands in a signature for a value, and shows as the words given."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


def _as_written(value: Any, *, quote: bool = False) -> Any:
    if value is inspect.Signature.empty:
        return value
    if (
        isinstance(value, str) and not quote
    ):  # an annotation: `from __future__ import annotations` keeps its text
        return _Words(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return _Words(value.__qualname__.replace("<lambda>", "..."))
    return _Words(re.sub(r"<([\w.]+).*>", r"\1", repr(value)))


def _doc(value: Any) -> list[str]:
    return _markdown(inspect.getdoc(value) or "")


def _markdown(doc: str) -> list[str]:
    """Return a docstring as Markdown: labelled parts as paragraphs, arguments as a list, doctests as code."""
    lines: list[str] = []
    arguments = False
    for line in _fenced(doc.split("\n")):
        label = _LABEL.match(line)
        if label:
            arguments = label[1] in ("Args", "Where", "Attributes") and not label[2]
            lines += [
                "",
                f"**{label[1]}**" + (f": {label[2]}" if label[2] else ":"),
                *([""] if arguments else []),
            ]
        elif arguments and line.startswith("    ") and not line.startswith("     "):
            lines.append(re.sub(r"^    ([\w*, ]+): ?", lambda m: f"- `{m[1]}`: ", line))
        elif arguments and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            arguments = arguments and not line.strip()
            lines.append(line)
    return lines


def _fenced(lines: list[str]) -> Iterator[str]:
    """Yield the lines with each doctest, from its prompt to the next blank line, inside a fence."""
    inside = False
    for line in [*lines, ""]:
        if line.lstrip().startswith(">>>") and not inside:
            inside = True
            yield from ("", "```pycon")
        if inside and not line.strip():
            inside = False
            yield "```"
        yield line.strip() if inside else line


def _sources(module: ModuleType) -> list[Path]:
    path = Path(inspect.getfile(module))
    return sorted(path.parent.glob("*.py*")) if path.name == "__init__.py" else [path]


def _order(name: str) -> tuple[bool, str]:
    return name.isupper(), name.lower()
