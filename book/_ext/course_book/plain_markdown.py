"""MyST as the Markdown that Jupyter shows: what it would print as raw directives is put into plain words."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

_OPEN = re.compile(r"^(\s*)(`{3,}|:{3,}|~{3,})\{([\w:-]+)\}\s*(.*)$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})[^`]*$")
_OPTION = re.compile(r"^\s*:[\w-]+:")
_ROLE = re.compile(r"\{([\w:+-]+)\}(`+)(.+?)\2")
_LABEL = re.compile(r"^\([\w-]+\)=\s*$")
_MATH_LABEL = re.compile(r"(\$\$)\s*\([\w-]+\)\s*$")
_ALT = re.compile(r"^\s*:alt:\s*(.*)$")
# Of no use outside the build.
_OURS = ("source_map", "jupytext", "run_alone")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_NOTES = {
    "note",
    "warning",
    "tip",
    "important",
    "admonition",
    "seealso",
    "caution",
    "hint",
    "danger",
    "attention",
}
_CODE_ROLES = ("py:", "code", "download", "file", "command")
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def plain_notebook(notebook: NotebookNode, *, folder: Path, book: Path) -> NotebookNode:
    """Change the notebook to plain Markdown with its pictures attached, and return it.

    A picture's path counts from `folder`, the page's own, or from `book` if it starts with a slash.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = plain_markdown(cell.source)
            _attach_pictures(cell, folder, book)
    for key in _OURS:
        notebook.metadata.pop(key, None)
    return notebook


def plain_markdown(text: str) -> str:
    """Return the text without directives, roles and labels.

    >>> plain_markdown("See {term}`rank` and {py:func}`launch`.")
    'See rank and `launch`.'
    """
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        opened = _OPEN.match(line)
        if opened:
            end = _end(lines, at, opened[2])
            yield from _directive(opened[3], opened[4].strip(), lines[at + 1 : end])
            at = end
        elif _FENCE.match(line):
            end = _end(lines, at, _FENCE.match(line)[1])
            yield from lines[at : end + 1]
            at = end
        elif not _LABEL.match(line):
            yield _inline(_MATH_LABEL.sub(r"\1", line))
        at += 1


def _end(lines: list[str], start: int, fence: str) -> int:
    """Return the index of the line that closes the fence, or of the last line."""
    for at in range(start + 1, len(lines)):
        closing = lines[at].strip()
        if closing and set(closing) == {fence[0]} and len(closing) >= len(fence):
            return at
    return len(lines)


def _directive(name: str, title: str, body: list[str]) -> Iterator[str]:
    alt = next((match[1] for match in map(_ALT.match, body) if match), "")
    while body and (_OPTION.match(body[0]) or not body[0].strip()):
        body = body[1:]
    if name == "exercise-notebook":
        yield f"**Exercise:** the notebook `{title}.ipynb`; `make lab` opens it."
    elif name in ("image", "figure"):
        yield from (f"![{alt}]({title})", "", *_lines(body))
    elif name == "math":
        yield from ("$$", *body, "$$")
    elif name.startswith("code"):
        yield from (f"```{title or 'python'}", *body, "```")
    elif name == "dropdown":
        yield from (
            "<details>",
            f"<summary>{title or 'Answer'}</summary>",
            "",
            *_lines(body),
            "",
            "</details>",
        )
    elif name == "chapter-box" or name in _NOTES:
        heading = "" if name == "chapter-box" else title or name.capitalize()
        yield from (
            f"> {line}".rstrip() for line in [*([f"**{heading}**", ""] if heading else []), *_lines(body)]
        )
    else:
        yield from ([f"**{title}**", ""] if title and name in ("table", "list-table", "tab-item") else [])
        yield from _lines(body)


def _inline(line: str) -> str:
    return _ROLE.sub(_words, line)


def _words(match: re.Match[str]) -> str:
    role, text = match[1], match[3]
    shown = re.sub(r"\s*<[^>]*>$", "", text)
    if role.startswith("cite"):
        return f"[{text}]"
    if role in ("eq", "numref"):
        return f"({text})"
    if role == "math":
        return f"${text}$"
    if role == "doc":
        return shown.rpartition("/")[2].replace("_", " ") if shown == text else shown
    return f"`{shown.lstrip('~')}`" if role.startswith(_CODE_ROLES) else shown


def _attach_pictures(cell: NotebookNode, folder: Path, book: Path) -> None:
    for path in {match[2] for match in _IMAGE.finditer(cell.source)}:
        picture = (book / path[1:] if path.startswith("/") else folder / path).resolve()
        if picture.suffix not in _TYPES or not picture.is_file():
            continue
        data = base64.b64encode(picture.read_bytes()).decode()
        cell.setdefault("attachments", {})[picture.name] = {_TYPES[picture.suffix]: data}
        cell.source = cell.source.replace(f"]({path})", f"](attachment:{picture.name})")
