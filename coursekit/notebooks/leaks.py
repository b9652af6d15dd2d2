"""Does anything of a solution, a hidden test or a model answer stand in what a learner gets?"""

from __future__ import annotations

import ast
import html
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coursekit.notebooks.source import (
    HIDDEN,
    SOLUTION,
    ExerciseSource,
    outside_regions,
    read_source,
    regions,
)

# A line shorter than this (without its blanks) says nothing about where it comes from: `return loss / count`.
DISTINCTIVE = 24


@dataclass(frozen=True)
class Secret:
    """Something that no released file may hold, blanks removed.

    what: "solution", "hidden tests" or "model answer". whole: a region of several lines, not one line of it.
    """

    slug: str
    grade_id: str
    what: str
    line: int
    text: str
    squeezed: str
    whole: bool = False


@dataclass(frozen=True)
class Leak:
    """A secret found in a released file; `where` names the file, inside archives too."""

    where: str
    secret: Secret

    def __str__(self) -> str:
        secret = self.secret
        shown = secret.text.strip().split("\n")[0][:60]
        return (
            f"{self.where}: holds {secret.what} of {secret.slug}, cell {secret.grade_id} "
            f"(source line {secret.line}): {shown!r}"
        )


def secrets_of(exercise: ExerciseSource) -> list[Secret]:
    """Return what must stay out of released files: distinctive lines and whole regions between markers.

    Left out is what the learner is shown anyway: lines that also stand outside the markers.
    """
    public = squeeze("\n".join(outside_regions(cell.source) for cell in exercise.cells))
    secrets: list[Secret] = []
    for cell in exercise.cells:
        hidden = [("hidden tests", region) for region in regions(cell.source, HIDDEN)]
        what = "model answer" if cell.kind == "answer" else "solution"
        for kind, region in hidden + [(what, region) for region in regions(cell.source, SOLUTION)]:
            for text, whole in _pieces(region):
                squeezed = squeeze(text)
                if len(squeezed) >= DISTINCTIVE and squeezed not in public:
                    secrets.append(
                        Secret(exercise.slug, cell.grade_id, kind, cell.line, text, squeezed, whole)
                    )
    return secrets


def find_leaks(folder: Path | str, secrets: Iterable[Secret]) -> list[Leak]:
    """Return the secrets that stand in any file below a folder (or in one file), archives and notebooks
    opened.

    Blanks, line breaks, comment signs at line starts and escapes of JSON and HTML make no difference. In
    `coursekit`'s own modules a single line of a solution may stand: the package teaches the same things;
    a whole region may not, nor any line of a hidden test or model answer.

    Returns: one leak a file and cell, the first found.
    """
    root = Path(folder)
    secrets = list(secrets)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    found: dict[tuple[str, str, str], Leak] = {}
    for path in files:
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        for where, data in _members(name, path.read_bytes()):
            texts = [squeeze(text) for text in _readings(where, data)]
            for secret in secrets:
                key = (where, secret.slug, secret.grade_id)
                if (
                    key not in found
                    and not _may_stand(secret, where)
                    and any(secret.squeezed in t for t in texts)
                ):
                    found[key] = Leak(where, secret)
    return list(found.values())


def check_search(secrets: Iterable[Secret]) -> None:
    """Raise AssertionError unless the search finds each secret planted in each form that a file can take.

    A leak test that finds nothing has to show that it could have.
    """
    for secret in secrets:
        for form, data in _disguises(secret.text):
            texts = [squeeze(text) for name, raw in _members(form, data) for text in _readings(name, raw)]
            assert any(secret.squeezed in text for text in texts), (
                f"the search misses a {secret.what} in {form}"
            )


def squeeze(text: str) -> str:
    r"""Return a text without blanks and without the comment signs that start its lines.

    >>> squeeze("#   return  total /\n    count")
    'returntotal/count'
    """
    return re.sub(r"\s+", "", re.sub(r"^[ \t#]+", "", text, flags=re.MULTILINE))


def leaks_below(folder: Path | str, sources: Iterable[Path]) -> list[Leak]:
    """Return the leaks of all given sources in a folder or archive, the search itself checked first."""
    secrets = [secret for path in sources for secret in secrets_of(read_source(path))]
    check_search(secrets)
    return find_leaks(folder, secrets)


def _pieces(region: str) -> Iterator[tuple[str, bool]]:
    lines = [line for line in region.split("\n") if line.strip(" \t#")]
    yield from ((line, False) for line in lines if not _is_import(line))
    if len(lines) > 1:
        yield "\n".join(lines), True


def _is_import(line: str) -> bool:
    """Return whether a line is an import, which many cells share and which gives nothing away."""
    try:
        body = ast.parse(line.strip()).body
    except SyntaxError:
        return False
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)


def _may_stand(secret: Secret, where: str) -> bool:
    in_package = "coursekit" in Path(where).parts and where.endswith((".py", ".pyi"))
    return in_package and secret.what == "solution" and not secret.whole


def _members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Return the file itself, or the members of an archive, archives within archives too."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        yield name, data
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield from _members(f"{name}/{member.filename}", archive.read(member))


def _readings(name: str, data: bytes) -> list[str]:
    """Return the texts that a file's bytes can be read as: raw, and what JSON and HTML encode."""
    text = data.decode("utf-8", errors="ignore")
    readings = [text]
    if name.endswith((".ipynb", ".json")):
        try:
            readings.append("\n".join(_strings(json.loads(text))))
        except ValueError:
            pass  # not JSON after all; the raw text is searched
    if "&" in text:
        readings.append(html.unescape(re.sub(r"<[^>]*>", "", text)))
    return readings


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _strings(part)
    elif isinstance(value, list):
        # A notebook's source is a list of lines; joined, a region of several lines is found in it.
        if value and all(isinstance(part, str) for part in value):
            yield "".join(value)
        else:
            for part in value:
                yield from _strings(part)


def _disguises(text: str) -> Iterator[tuple[str, bytes]]:
    lines = text.splitlines(keepends=True)
    notebook = json.dumps({"cells": [{"source": lines, "metadata": {}}]}).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner.ipynb", notebook)
    yield "plain.md", text.encode()
    yield "indented.py", "\n".join(f"    #  {line}" for line in text.split("\n")).encode()
    yield "notebook.ipynb", notebook
    yield "metadata.ipynb", json.dumps({"metadata": {"kept": text}}).encode()
    yield "page.html", f"<pre>{html.escape(text)}</pre>".encode()
    yield "archive.zip", packed.getvalue()
