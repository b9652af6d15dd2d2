"""Which files of a package some code depends on: found by reading imports, nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Import name and the name under which it is installed, where the two differ.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "PyYAML", "PIL": "pillow"}


@dataclass(frozen=True)
class _Use:
    """A module that code imports; `names` are what it takes from it, None for the module as a whole."""

    module: str
    names: tuple[str, ...] | None


def package_files(sources: Sequence[str], folder: Path) -> list[Path]:
    """Return the files of the package in `folder` that pieces of code use, directly or through other files.

    A name is followed through the package's stub (`__init__.pyi`) to the module that defines it. Where that
    cannot be told (the module as a whole is imported, its name stands in a string, or the code is no plain
    Python), everything below the module counts.
    """
    found: set[Path] = set()
    waiting = [(source, folder.name) for source in sources]
    while waiting:
        source, module = waiting.pop()
        for use in _uses(source, module, folder.name):
            new = set(_files_of(use, folder)) - found
            found |= new
            waiting += [
                (path.read_text(encoding="utf-8"), _name(path, folder)) for path in new if _is_code(path)
            ]
    return sorted(found)


def installed_versions(sources: Sequence[str]) -> list[str]:
    """Return "name version" for each installed distribution that pieces of code import by its own name."""
    names = set(re.findall(r"^\s*(?:import|from)\s+(\w+)", "\n".join(sources), re.MULTILINE))
    found = []
    for name in sorted(names):
        try:
            found.append(f"{name} {version(_DISTRIBUTIONS.get(name, name))}")
        except PackageNotFoundError:
            continue
    return found


def _uses(source: str, module: str, package: str) -> Iterator[_Use]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic
        yield from (_Use(name, None) for name in _mentioned(source, package))
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_Use(alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _Use(_absolute(node, module), tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            # A script in a string, for another process.
            yield from (_Use(name, None) for name in _mentioned(node.value, package))


def _mentioned(text: str, package: str) -> list[str]:
    words = re.findall(rf"\b{package}(?:\.\w+)+", text)
    for names in re.findall(rf"from {package} import ([\w, ]+)", text):
        words += [f"{package}.{name}" for name in re.findall(r"\w+", names)]
    return words


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    base = module.split(".")[: -node.level]
    return ".".join([*base, *([node.module] if node.module else [])])


def _files_of(use: _Use, folder: Path) -> Iterator[Path]:
    parts = use.module.split(".")
    if parts[0] != folder.name:
        return
    place = folder.joinpath(*parts[1:])
    # `import package.module.name` as well as a mention of it end at the module.
    while not place.is_dir() and not place.with_suffix(".py").is_file() and place != folder:
        place = place.parent
    if not place.is_dir():
        yield place.with_suffix(".py")
    elif use.names is None:
        yield from _all_below(place)
    else:
        yield place / "__init__.py"
        yield from (path for path in place.glob("*") if path.suffix in {".json", ".yml", ".j2"})
        for name in use.names:
            yield from _files_of_name(name, place)


def _files_of_name(name: str, place: Path) -> Iterator[Path]:
    stub = place / "__init__.pyi"
    text = stub.read_text(encoding="utf-8") if stub.is_file() else ""
    source = re.search(rf"^from \.(\w+) import {name} as {name}$", text, re.MULTILINE)
    target = place / (source[1] if source else name)
    if target.with_suffix(".py").is_file():
        yield target.with_suffix(".py")
    else:
        yield from _all_below(target if target.is_dir() else place)


def _all_below(place: Path) -> Iterator[Path]:
    yield from (path for path in place.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _is_code(path: Path) -> bool:
    return path.suffix == ".py"


def _name(path: Path, folder: Path) -> str:
    """Return the dotted name of a file, such that a relative import counts from it."""
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts)
