"""Code cells that a student added: those that an answer needs run where they stand, the others do not."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from coursekit.grading.cell_kinds import is_test, name_of
from coursekit.grading.intake import Answer, Answers
from coursekit.notebooks.forbidden import ADDED
from coursekit.notebooks.needed import Kind, find_needs

Cell = dict[str, Any]
# Of all added cells together; what lies beyond is not looked at. Which cells are needed takes the square of
# their number.
MAX_ADDED_CHARACTERS, MAX_ADDED_CELLS = 200_000, 500


def with_needed_cells(
    cells: list[Cell], answers: Answers, chosen: Collection[int], released: Mapping[str, str]
) -> list[Cell]:
    """Return a notebook's cells and between them, marked as added, what else of the student's they need.

    Of use are code cells without a grade_id, read-only ones that were changed (by an import, for instance),
    and of an answer that stands in several cells (one that was split) those that were not chosen. Nothing but
    their text is the student's.

    Args:
        cells: the template's, answers put in.
        answers: what was submitted.
        chosen: `id` of the Answers that were put in.
        released: grade_id -> the text that the student was given in that cell.
    """
    added: dict[int, list[str]] = {}
    for place, source in _bounded(_placed(cells, answers, chosen, released)):
        added.setdefault(place, []).append(source)
    line: list[tuple[Kind, str, Cell]] = []
    for place, cell in enumerate([*cells, None]):
        line += [("added", source, {}) for source in added.get(place, [])]
        if cell is not None and cell["cell_type"] == "code":
            kind = _kind(cell)
            line.append((kind, released[name_of(cell)] if kind == "test" else cell["source"], cell))
        elif cell is not None:
            line.append(("given", "", cell))
    needed = find_needs([(kind, source) for kind, source, _ in line]).cells
    with_id = any("id" in cell for cell in cells)
    return [
        _new_cell(source, number, with_id=with_id) if kind == "added" else cell
        for number, (kind, source, cell) in enumerate(line)
        if kind != "added" or number in needed
    ]


def _placed(
    cells: list[Cell], answers: Answers, chosen: Collection[int], released: Mapping[str, str]
) -> Iterator[tuple[int, str]]:
    """Yield the text of each added cell and the position of the template's cell before which it belongs."""
    positions = {name: place for place, cell in enumerate(cells) if (name := name_of(cell)) is not None}
    given = {cell["source"].strip() for cell in cells if name_of(cell) is None}
    place = 0
    for answer in answers.order:
        cell = cells[positions[answer.grade_id]] if answer.grade_id in positions else None
        if cell is not None and (id(answer) in chosen or not _is_solution(cell)):
            place = positions[answer.grade_id] + 1
        if _is_added(answer, cell, chosen, released) and answer.source.strip() not in given:
            # Below a stub that the student deleted, above the test that was next.
            stands = (
                n
                for name, n in positions.items()
                if n >= place and (is_test(cells[n]) or name in answers.by_id)
            )
            yield min(stands, default=len(cells)), answer.source


def _is_added(
    answer: Answer, cell: Cell | None, chosen: Collection[int], released: Mapping[str, str]
) -> bool:
    if cell is None:
        return answer.grade_id is None
    if answer.cell_type != "code" or is_test(cell) or cell["cell_type"] != "code":
        return False
    name = str(answer.grade_id)
    return id(answer) not in chosen and answer.source.strip() != released[name].strip()


def _bounded(placed: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    left = MAX_ADDED_CHARACTERS
    for place, source in itertools.islice(placed, MAX_ADDED_CELLS):
        left -= len(source)
        if left < 0:
            return
        yield place, source


def _is_solution(cell: Cell) -> bool:
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def _kind(cell: Cell) -> Kind:
    return "test" if is_test(cell) else "answer" if _is_solution(cell) else "given"


def _new_cell(source: str, number: int, *, with_id: bool) -> Cell:
    name = f"added-{number}"
    cell = {"cell_type": "code", "metadata": {"coursekit": {ADDED: name}}, "source": source}
    return {**cell, "outputs": [], "execution_count": None, **({"id": name} if with_id else {})}
