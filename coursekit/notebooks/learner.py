"""The learner's own check: the saved notebook run from the top, with the points so far and what to mend."""

from __future__ import annotations

import hashlib
import html
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coursekit.errors import InputError, require
from coursekit.notebooks.execute import CELL_SECONDS, CHECKING, run_notebook
from coursekit.notebooks.forbidden import block_forbidden, bound_names, is_solution_code, parse_cell
from coursekit.notebooks.given import without_scratch_cells
from coursekit.notebooks.scoring import (
    CellScore,
    error_message,
    grading_words,
    name_of,
    score_notebook,
)

if TYPE_CHECKING:
    from nbformat import NotebookNode

_CHANGED = "this test cell was changed; grading uses the original, so undo the change"


@dataclass(frozen=True)
class CheckReport:
    """What a learner's notebook earns so far.

    cells: every graded cell; hidden tests and answers that a person grades have no score yet.
    notes: what is wrong with the notebook itself, one sentence each.
    """

    notebook: str
    title: str
    cells: tuple[CellScore, ...]
    notes: tuple[str, ...] = ()

    @property
    def visible(self) -> list[CellScore]:
        """Return the cells that are decided here and now."""
        return [cell for cell in self.cells if cell.score is not None]

    @property
    def passed(self) -> bool:
        """Return whether every visible test gives its full points."""
        return all(cell.status == "passed" for cell in self.visible)

    @property
    def summary(self) -> str:
        """Return the points so far in one sentence."""
        earned, most = sum(c.score or 0 for c in self.visible), sum(c.max_score for c in self.visible)
        later = sum(cell.max_score for cell in self.cells if cell.score is None)
        decided = f"; {later:g} more are decided at grading" if later else ""
        return f"{earned:g} of {most:g} points so far{decided}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "notebook": self.notebook,
            "title": self.title,
            "passed": self.passed,
            "score": sum(cell.score or 0 for cell in self.visible),
            "max_score": sum(cell.max_score for cell in self.visible),
            "decided_at_grading": sum(cell.max_score for cell in self.cells if cell.score is None),
            "cells": [asdict(cell) for cell in self.cells],
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return status, task, points and message of each graded cell."""
        return [(_MARKS[c.status], c.grade_id, _points(c), c.message) for c in self.cells]

    def __str__(self) -> str:
        lines = [
            f"{mark:<8} {task:<32} {points:>7}  {message}".rstrip()
            for mark, task, points, message in self.rows()
        ]
        return "\n".join([*lines, self.summary, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(f'<td style="text-align: left">{html.escape(part)}</td>' for part in row)
            + "</tr>"
            for row in self.rows()
        )
        heads = "".join(
            f'<th style="text-align: left">{head}</th>' for head in ("", "test", "points", "what to mend")
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table><tr>{heads}</tr>{rows}</table><p><b>{html.escape(self.summary)}</b></p>{notes}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


_MARKS = {
    "passed": "passed", "partial": "partly", "failed": "failed", "not run": "not run",
    "manual": "later", "later": "later",
}  # fmt: skip


def check(notebook: Path | str | None = None, *, cell_seconds: float = CELL_SECONDS) -> CheckReport | None:
    """Return the report on the notebook that calls this, or on the one named; save it first.

    The saved file runs from the top in a kernel of its own, so what counts is what you would hand in.

    Raises: InputError if no notebook is named and the one that is open cannot be told.
    """
    if os.environ.get(CHECKING):
        return None
    path = Path(notebook) if notebook is not None else _open_notebook()
    report = check_notebook(path, cell_seconds=cell_seconds)
    unsaved = _unsaved(path) if notebook is None else []
    if not unsaved:
        return report
    note = f"you ran another {' and '.join(unsaved)} than the saved file holds: save, then check again"
    return replace(report, notes=(note, *report.notes))


def check_notebook(path: Path | str, *, cell_seconds: float = CELL_SECONDS) -> CheckReport:
    """Return the report on a saved notebook: its visible tests run as grading runs them.

    Raises: InputError if the file is no exercise's notebook.
    """
    path = Path(path)
    notebook = read_notebook(path)
    given, added = without_scratch_cells(notebook)
    blocked, findings = block_forbidden(given)
    executed = run_notebook(blocked, cwd=path.resolve().parent, cell_seconds=cell_seconds)
    changed = {name_of(cell) for cell in notebook.cells if is_changed(cell)}
    cells = (*(_shown(cell, changed) for cell in score_notebook(executed)), *_missing_tests(notebook))
    notes = [*_cell_notes(notebook, changed), *added, *(finding.message for finding in findings)]
    blocked_ids = {finding.grade_id for finding in findings}
    notes += [note for name, note in _crashes(executed) if name not in blocked_ids]
    title = notebook.metadata.get("coursekit", {}).get("title", path.stem)
    return CheckReport(str(path), title, cells, tuple(notes))


def read_notebook(path: Path) -> NotebookNode:
    """Return the notebook in a file.

    Raises: InputError if there is none or it holds no graded cell.
    """
    nbformat = require("nbformat", extra="notebooks")
    if not path.is_file():
        raise InputError("no such notebook", expected="a file .ipynb", got=path)
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds, all meaning the same to a learner
        fix = "save it again from Jupyter, or fetch a new copy"
        raise InputError(f"{path} is no notebook", got=f"{type(error).__name__}: {error}", fix=fix) from error
    if not any(grading_words(cell).get("grade") for cell in notebook.cells):
        raise InputError(f"{path} has no graded cell", expected="a notebook of the course's exercises")
    return notebook


def is_changed(cell: NotebookNode) -> bool:
    """Return whether a read-only cell is no longer what was released, by nbgrader's checksum in its
    metadata.
    """
    words = grading_words(cell)
    return bool(words.get("locked") and words.get("checksum") and words["checksum"] != checksum(cell))


def checksum(cell: NotebookNode) -> str:
    """Return nbgrader's checksum of a cell, without nbgrader (it is not there in Colab).

    Source: nbgrader.utils.compute_checksum; a test holds the two equal.
    """
    words = grading_words(cell)
    grade, solution = words.get("grade", False), words.get("solution", False)
    locked = False if solution else True if grade else words.get("locked", False)
    parts = [cell.source, cell.cell_type, str(grade), str(solution), str(locked), words["grade_id"]]
    parts += [str(float(words["points"]))] if grade else []
    return hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()


def _shown(cell: CellScore, changed: set[str]) -> CellScore:
    """Return a cell's score as far as it can be told before grading."""
    if cell.hidden:
        return replace(cell, score=None, status="later", message="hidden test, decided at grading")
    if cell.status == "manual":
        return replace(cell, message="read and graded by a person")
    if cell.grade_id in changed:
        return replace(cell, score=0, status="failed", message=_CHANGED)
    return cell


def _missing_tests(notebook: NotebookNode) -> list[CellScore]:
    released = notebook.metadata.get("coursekit", {}).get("cells", {})
    there = {name_of(cell) for cell in notebook.cells}
    return [
        CellScore(name, 0, points, "failed", "this cell is missing")
        for name, points in released.items()
        if points and name not in there
    ]


def _cell_notes(notebook: NotebookNode, changed: set[str]) -> list[str]:
    released = notebook.metadata.get("coursekit", {}).get("cells", {})
    counts = Counter(name_of(cell) for cell in notebook.cells if name_of(cell))
    tests = {name_of(cell) for cell in notebook.cells if grading_words(cell).get("grade")}
    notes = [
        f"cell {name} is missing: fetch a new copy and move your answers"
        for name in released
        if not counts[name]
    ]
    notes += [
        f"cell {name} stands {count} times: delete the copies" for name, count in counts.items() if count > 1
    ]
    notes += [
        f"the read-only cell {name} was changed; grading uses the original"
        for name in sorted(changed - tests)
    ]
    untouched = [
        name_of(cell)
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        and grading_words(cell).get("checksum") == _checksum_or_none(cell)
        and grading_words(cell).get("solution")
    ]
    return notes + [f"the question {name} has no answer yet" for name in untouched]


def _checksum_or_none(cell: NotebookNode) -> str | None:
    return checksum(cell) if name_of(cell) else None


def _crashes(executed: NotebookNode) -> list[tuple[str, str]]:
    """Return names and notes of the learner's cells that raised: a test that fails for it says only
    NameError.
    """
    cells = {cell.execution_count: name_of(cell) for cell in executed.cells if cell.get("execution_count")}
    found = []
    for cell in filter(is_solution_code, executed.cells):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            found.append((name_of(cell), f"cell {name_of(cell)} raised {error_message(errors[0], cells)}"))
    return found


def _points(cell: CellScore) -> str:
    return f"{'?' if cell.score is None else format(cell.score, 'g')} / {cell.max_score:g}"


def _open_notebook() -> Path:
    """Return the file of the notebook that this code runs in."""
    shell = _shell()
    named = [shell.user_ns.get("__vsc_ipynb_file__")] if shell else []
    named.append(os.environ.get("JPY_SESSION_NAME"))
    for name in filter(None, named):
        if Path(name).suffix == ".ipynb" and Path(name).is_file():
            return Path(name)
    beside = sorted(Path.cwd().glob("*.ipynb"))
    if shell and len(beside) == 1:
        return beside[0]
    raise InputError("which notebook is open cannot be told from here", fix='name it: check("<file>.ipynb")')


def _shell() -> Any:
    """Return the running IPython shell or None, without importing IPython where it is not in use."""
    import sys

    module = sys.modules.get("IPython")
    return module.get_ipython() if module else None


def _unsaved(path: Path) -> list[str]:
    """Return the names whose last executed definition is not in the saved file."""
    shell = _shell()
    history = [text.strip() for text in shell.history_manager.input_hist_raw] if shell else []
    notebook = read_notebook(path)
    saved = {cell.source.strip() for cell in notebook.cells}
    unsaved = []
    for cell in filter(is_solution_code, notebook.cells):
        tree = parse_cell(cell.source)
        for name in sorted(bound_names(tree)) if tree else []:
            ran = [text for text in history if _binds(text, name)]
            if ran and ran[-1] not in saved and name not in unsaved:
                unsaved.append(name)
    return unsaved


def _binds(text: str, name: str) -> bool:
    tree = parse_cell(text) if name in text else None
    return tree is not None and name in bound_names(tree)
