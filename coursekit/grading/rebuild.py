"""Rebuild: the released notebook with its hidden tests, and the student's answers put in; nothing else."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

from coursekit.grading.additions import with_needed_cells
from coursekit.grading.intake import (
    MAX_ANSWER_CHARACTERS,
    Answer,
    Answers,
    reject_other_exercise,
    slug_of,
)

Cell = dict[str, Any]


@dataclass(frozen=True)
class Template:
    """What an assignment's notebook is before anybody answers.

    notebook: the released cells, with hidden tests in the test cells and stubs in the solution cells.
    released: grade_id -> the text that the student was given in that cell.
    student_names: names that solution cells define, those of the stub and those of the reference.
    """

    notebook: dict[str, Any]
    released: dict[str, str]
    student_names: frozenset[str] = frozenset()

    @property
    def hidden_tests(self) -> frozenset[str]:
        """The grade_ids of tests of which the student was not given everything."""
        tests = [cell for cell in self.notebook["cells"] if is_grade(cell) and not is_solution(cell)]
        names = {str(grade_id_of(cell)): cell["source"] for cell in tests}
        return frozenset(name for name, source in names.items() if not _same(source, self.released[name]))


@dataclass(frozen=True)
class Rebuilt:
    """The notebook to run, the grade_ids left as the stub, and what was odd about the submission."""

    notebook: dict[str, Any]
    unanswered: frozenset[str]
    flags: tuple[str, ...]


def rebuild(template: Template, answers: Answers) -> Rebuilt:
    """Return the template with each solution cell's text taken from the student, and cells that these need.

    Deleted cells stay stubs, reordered ones stand where they belong, test cells are always the template's.
    Raises: RejectedError if this is the notebook of another exercise.
    """
    reject_other_exercise(answers, slug=slug_of(template.notebook), known=template.released)
    notebook = copy.deepcopy(template.notebook)
    unanswered, flags = set(), _order_flags(template, answers)
    chosen: list[Answer] = []
    for cell in notebook["cells"]:
        grade_id = grade_id_of(cell)
        if grade_id is None:
            continue
        given, released = answers.by_id.get(grade_id, []), template.released[grade_id]
        flags += _cell_flags(cell, given, released)
        if is_solution(cell):
            answer = _chosen(given, released)
            cell["source"] = answer.source
            chosen.append(answer)
            if _same(cell["source"], released):
                unanswered.add(grade_id)
    ids = {id(answer) for answer in chosen}
    cells = with_needed_cells(notebook["cells"], answers, ids, template.released)
    added = len(cells) - len(notebook["cells"])
    flags += [f"added_cells:{added}"] if added else []
    notebook["cells"] = cells
    return Rebuilt(notebook, frozenset(unanswered), tuple(flags))


def grade_id_of(cell: Cell) -> str | None:
    """Return the grade_id of a cell of the template, or None."""
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


def is_solution(cell: Cell) -> bool:
    """Return whether the student writes this cell."""
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def is_grade(cell: Cell) -> bool:
    """Return whether this cell carries points."""
    return bool(cell["metadata"].get("nbgrader", {}).get("grade"))


def _chosen(given: list[Answer], released: str) -> Answer:
    # Of copies the last one counts, as it would in the student's own run, unless it is an untouched stub.
    bearable = [answer for answer in given if len(answer.source) <= MAX_ANSWER_CHARACTERS]
    written = [answer for answer in bearable if not _same(answer.source, released)]
    untouched = [answer for answer in bearable if _same(answer.source, released)]
    return [Answer(released, "code"), *untouched, *written][-1]


def _cell_flags(cell: Cell, given: list[Answer], released: str) -> list[str]:
    grade_id = grade_id_of(cell)
    if not given:
        return [f"missing_cell:{grade_id}"]
    flags = [f"duplicate_cell:{grade_id}"] if len(given) > 1 else []
    if any(len(answer.source) > MAX_ANSWER_CHARACTERS for answer in given):
        flags.append(f"too_long_cell:{grade_id}")
    if any(answer.cell_type != cell["cell_type"] for answer in given):
        flags.append(f"retyped_cell:{grade_id}")
    if not is_solution(cell) and any(not _same(answer.source, released) for answer in given):
        flags.append(f"changed_cell:{grade_id}")
    return flags


def _order_flags(template: Template, answers: Answers) -> list[str]:
    positions = {grade_id: i for i, grade_id in enumerate(template.released)}
    names = dict.fromkeys(answer.grade_id for answer in answers.order)
    seen = [positions[name] for name in names if name in positions]
    unknown = [grade_id for grade_id in answers.by_id if grade_id not in positions]
    flags = [f"unknown_cells:{len(unknown)}"] if unknown else []
    return flags + ([] if seen == sorted(seen) else ["reordered_cells"])


def _same(left: str, right: str) -> bool:
    # Of what is longer nothing was released: a submission can hold one cell of its whole size.
    return max(len(left), len(right)) <= MAX_ANSWER_CHARACTERS and _lines(left) == _lines(right)


@functools.lru_cache(64)  # or a hundred thousand copies of a cell, and its stub for each of them
def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]
