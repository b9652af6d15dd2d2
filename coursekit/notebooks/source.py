"""Reading `solutions/<slug>.py`, the one source of an exercise."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from coursekit.errors import InputError, require

KINDS = ("locked", "solution", "tests", "answer")
GRADED_KINDS = ("tests", "answer")
HIDDEN = "HIDDEN TESTS"
SOLUTION = "SOLUTION"
_CELL_LINE = re.compile(r"^# ?%%(?!%)")
_MARKER = re.compile(r"^\s*#*\s*(BEGIN|END) (SOLUTION|HIDDEN TESTS)\s*$")


@dataclass(frozen=True)
class SourceCell:
    """A cell of the source: its kind ("" for ordinary text and code), its text, and the line where it
    starts.
    """

    cell_type: str
    source: str
    line: int
    kind: str = ""
    grade_id: str = ""
    points: float | None = None
    hidden: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExerciseSource:
    """An exercise as its author wrote it, read and found to be well formed."""

    path: Path
    slug: str
    title: str
    cells: tuple[SourceCell, ...]
    forbidden: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def of_kind(self, *kinds: str) -> list[SourceCell]:
        """Return the cells of these kinds, in order."""
        return [cell for cell in self.cells if cell.kind in kinds]


def read_source(path: Path | str) -> ExerciseSource:
    """Return the exercise that a py:percent file describes.

    Raises: InputError naming file and line, for anything that nbgrader or a learner would stumble over later.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such exercise source", expected="a file", got=path)
    slug = check_slug(path.stem, path)
    text = path.read_text(encoding="utf-8")
    header, first_line = _header(text, path)
    body = "\n".join(text.split("\n")[first_line:])
    cells = _cells(body, first_line, path)
    _check_unique(cells, path)
    if not any(cell.kind in GRADED_KINDS for cell in cells):
        raise at(path, 1, "nothing in this exercise earns points", fix='add a cell with nbgrader="tests"')
    known = {"title", "forbidden"}
    forbidden = header.get("forbidden") or []
    if not isinstance(forbidden, list) or not all(isinstance(name, str) for name in forbidden):
        raise at(path, 1, "forbidden is not a list of names", expected="[torch.optim, ...]", got=forbidden)
    extra = {key: value for key, value in header.items() if key not in known}
    return ExerciseSource(path, slug, str(header["title"]), tuple(cells), tuple(forbidden), extra)


def check_slug(slug: str, path: Path) -> str:
    """Return the slug, or raise InputError if a notebook of that name could not live beside Python code."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        raise at(path, 1, "the file's name is no slug", expected="lower case and underscores", got=slug)
    # A tensorflow.ipynb is harmless, but nbgrader and learners put .py files of the same name beside it,
    # and those shadow the package.
    installed = [folder for folder in sys.path if folder.endswith("-packages")]
    if slug in sys.stdlib_module_names or PathFinder.find_spec(slug, installed) is not None:
        raise at(path, 1, f"{slug} is the name of a package", fix="choose a slug that no import can mean")
    return slug


def at(path: Path, line: int, problem: str, **facts: Any) -> InputError:
    """Return the InputError for a problem at a line of a file, written as editors understand it."""
    return InputError(f"{path}:{line}: {problem}", **facts)


def regions(text: str, what: str) -> list[str]:
    """Return the texts between the BEGIN and END markers of `what` (SOLUTION or HIDDEN TESTS)."""
    found, current = [], None
    for line in text.split("\n"):
        marker = _MARKER.match(line)
        if marker and marker[2] == what:
            if marker[1] == "END" and current is not None:
                found.append("\n".join(current))
            current = [] if marker[1] == "BEGIN" else None
        elif current is not None:
            current.append(line)
    return found


def outside_regions(text: str) -> str:
    """Return the text without any marked region and without the markers."""
    kept, inside = [], False
    for line in text.split("\n"):
        marker = _MARKER.match(line)
        if marker:
            inside = marker[1] == "BEGIN"
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _header(text: str, path: Path) -> tuple[dict[str, Any], int]:
    """Return the `coursekit:` block of the YAML header, and the number of lines that the header takes."""
    lines = text.split("\n")
    if not lines or lines[0].rstrip() != "# ---":
        raise at(
            path, 1, "the header is missing", expected="'# ---', '# coursekit:', '#   title: ...', '# ---'"
        )
    end = next((i for i, line in enumerate(lines[1:], start=1) if line.rstrip() == "# ---"), None)
    if end is None:
        raise at(path, 1, "the header has no end", expected="a second line '# ---'")
    yaml = require("yaml", extra="notebooks")
    try:
        block = yaml.safe_load("\n".join(line[2:] for line in lines[1:end]))
    except yaml.YAMLError as error:
        raise at(path, 1, f"the header is not YAML ({error})") from error
    header = block.get("coursekit") if isinstance(block, dict) else None
    if not isinstance(header, dict) or not header.get("title"):
        raise at(path, 1, "the header says no title", expected="coursekit: {title: ...}", got=block)
    return header, end + 1


def _cells(body: str, first_line: int, path: Path) -> list[SourceCell]:
    jupytext = require("jupytext", extra="notebooks")
    cell_lines = [
        n for n, line in enumerate(body.split("\n"), start=first_line + 1) if _CELL_LINE.match(line)
    ]
    before = body.split("\n")[: cell_lines[0] - first_line - 1] if cell_lines else [body]
    if "\n".join(before).strip():
        raise at(
            path, first_line + 1, "text before the first cell", fix="start with a line '# %% [markdown]'"
        )
    # Blank lines after the header would count as a cell.
    cells = jupytext.reads(body.lstrip("\n"), fmt="py:percent").cells
    if len(cells) != len(cell_lines):
        raise at(
            path,
            first_line + 1,
            "the cells cannot be told apart",
            expected=f"{len(cell_lines)} cells",
            got=len(cells),
            fix="a line that starts with '# %%' must not stand inside a string or a cell's code",
        )
    return [_cell(cell, line, path) for cell, line in zip(cells, cell_lines, strict=True)]


def _cell(cell: Any, line: int, path: Path) -> SourceCell:
    """Return the checked form of one jupytext cell."""
    words = {
        key: value
        for key, value in cell.metadata.items()
        if key not in ("lines_to_next_cell", "lines_to_end_of_cell_marker", "title", "cell_marker")
    }
    kind, grade_id = words.pop("nbgrader", ""), words.pop("grade_id", "")
    points, tags = words.pop("points", None), words.pop("tags", [])
    if words:
        raise at(path, line, f"unknown words {sorted(words)}", expected="nbgrader, grade_id, points or tags")
    if cell.cell_type not in ("code", "markdown"):
        raise at(path, line, f"a {cell.cell_type} cell", expected="code or [markdown]")
    hidden = f"BEGIN {HIDDEN}" in cell.source
    checked = SourceCell(cell.cell_type, cell.source, line, kind, str(grade_id), points, hidden, tuple(tags))
    _check_words(checked, path)
    _check_markers(checked, path)
    if kind == "tests":
        _check_tests(checked, path)
    return checked


def _check_words(cell: SourceCell, path: Path) -> None:
    line = cell.line
    if not cell.kind:
        if cell.grade_id or cell.points is not None:
            raise at(path, line, "grade_id or points without a kind", fix=f"add nbgrader= one of {KINDS}")
        return
    if cell.kind not in KINDS:
        raise at(path, line, "unknown kind of cell", expected=" or ".join(KINDS), got=repr(cell.kind))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,59}", cell.grade_id):
        raise at(
            path, line, "the grade_id is no name", expected="letters, digits, _", got=repr(cell.grade_id)
        )
    number = isinstance(cell.points, (int, float)) and not isinstance(cell.points, bool) and cell.points > 0
    if cell.kind in GRADED_KINDS and not number:
        raise at(path, line, f"{cell.grade_id} has no points", expected="points=1 or more", got=cell.points)
    if cell.kind not in GRADED_KINDS and cell.points is not None:
        raise at(path, line, f"a {cell.kind} cell earns no points", fix="put points= on its tests cell")
    wants_markdown = cell.kind == "answer"
    if (cell.cell_type == "markdown") != wants_markdown:
        raise at(
            path,
            line,
            f"a {cell.kind} cell is {'markdown' if wants_markdown else 'code'}",
            got=cell.cell_type,
        )


def _check_markers(cell: SourceCell, path: Path) -> None:
    """Raise unless markers pair up, and stand where their kind of cell allows them."""
    open_marker = ""
    for number, text in enumerate(cell.source.split("\n"), start=cell.line + 1):
        words = re.search(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS)", text)
        if not words:
            continue
        edge, what = words[1], words[2]
        if not _MARKER.match(text):
            raise at(
                path, number, "a marker shares its line with other text", expected=f"### {edge} {what} alone"
            )
        allowed = {SOLUTION: ("solution", "answer"), HIDDEN: ("tests",)}[what]
        if cell.kind not in allowed:
            raise at(
                path, number, f"{what} marker in a cell of kind {cell.kind or 'none'!r}", expected=allowed
            )
        if (edge == "BEGIN") == bool(open_marker) or (edge == "END" and open_marker != what):
            raise at(path, number, f"unbalanced marker {edge} {what}", got=f"{open_marker or 'nothing'} open")
        open_marker = what if edge == "BEGIN" else ""
    if open_marker:
        raise at(path, cell.line, f"BEGIN {open_marker} without END {open_marker}")
    if cell.kind in ("solution", "answer") and not regions(cell.source, SOLUTION):
        raise at(
            path,
            cell.line,
            f"{cell.grade_id} marks no solution",
            expected="### BEGIN SOLUTION ... ### END SOLUTION",
        )


def _check_tests(cell: SourceCell, path: Path) -> None:
    code = regions(cell.source, HIDDEN)[0] if cell.hidden else cell.source
    try:
        tree = ast.parse(cell.source)
    except SyntaxError as error:
        line = cell.line + (error.lineno or 1)
        raise at(path, line, f"{cell.grade_id} is not Python: {error.msg}") from error
    if not any(not isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        raise at(
            path, cell.line, f"{cell.grade_id} tests nothing", fix="call an expect_... of coursekit.notebooks"
        )
    if not cell.hidden:
        return
    public = [text for text in outside_regions(cell.source).split("\n") if text.strip()]
    if len(public) != 1 or not public[0].startswith("#") or not cell.source.startswith(public[0]):
        raise at(
            path,
            cell.line,
            f"{cell.grade_id} mixes visible and hidden tests",
            expected="one comment line, then everything else between the hidden markers",
        )
    if len(regions(cell.source, HIDDEN)) != 1 or not code.strip():
        raise at(
            path, cell.line, f"{cell.grade_id} has an empty or a second hidden region", expected="one region"
        )


def _check_unique(cells: list[SourceCell], path: Path) -> None:
    first_line: dict[str, int] = {}
    for cell in cells:
        if not cell.grade_id:
            continue
        if cell.grade_id in first_line:
            where = f"line {first_line[cell.grade_id]} and line {cell.line}"
            raise at(path, cell.line, f"duplicate grade_id {cell.grade_id!r}", got=where)
        first_line[cell.grade_id] = cell.line
