"""The sample class: submissions with known scores, made from recorded answers and a list of mishaps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coursekit.errors import InputError, require
from coursekit.grading.course import Course
from coursekit.grading.mishaps import MISHAPS
from coursekit.grading.nbgrader_tools import NbgraderError
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.report import Result

NOTE = "sample_class.json"
WRITTEN_ANSWER = "Micro-batches differ in size, so each has to weigh by what it holds."


@dataclass(frozen=True)
class SampleClass:
    """Where a sample class is described: class.yml, the sources, the recorded answers <slug>/<name>.py."""

    class_file: Path
    solutions: Path
    answers: Path


@dataclass(frozen=True)
class Outcome:
    """One submission of the sample class: what it is, the points it must get, and the result it got.

    expected: test cell -> points; None if the submission must be rejected.
    """

    student: str
    assignment: str
    what: str
    expected: Mapping[str, float] | None
    result: Result

    @property
    def as_expected(self) -> bool:
        """Whether each test cell got exactly the points that were known before."""
        if self.expected is None:
            return self.result.status == "rejected" and self.result.score == 0
        got = {cell.grade_id: cell.score for cell in self.result.cells if cell.grade_id in self.expected}
        return self.result.status == "graded" and got == self.expected


@dataclass(frozen=True)
class _Entry:
    """A line of class.yml."""

    student: str
    assignment: str
    answer: str
    mishap: str
    scores: Mapping[str, float] | int | None

    @property
    def what(self) -> str:
        return " + ".join(filter(None, (self.answer, self.mishap.replace("_", " "))))


def grade_sample(folder: str | Path, sample: SampleClass, *, workers: int = 2) -> list[Outcome]:
    """Make the course folder, put in the submissions, grade them; what is there and unchanged is kept.

    Raises: InputError if a file is missing, or class.yml names what is not there.
    """
    entries = read_class(sample.class_file)
    course = Course(Path(folder).expanduser().resolve())
    expected = _fill(course, sample, entries)
    results: dict[tuple[str, str], Result] = {}
    # These submissions are ours, so a machine that refuses the sandbox may show the class all the same.
    for assignment in dict.fromkeys(entry.assignment for entry in entries):
        students = tuple(entry.student for entry in entries if entry.assignment == assignment)
        options = Options(students, workers, allow_unsandboxed=True)
        graded = grade_assignment(course, assignment, options=options)
        results |= {(assignment, result.student): result for result in graded}
    return [
        Outcome(
            e.student,
            e.assignment,
            e.what,
            expected[e.assignment][e.student],
            results[e.assignment, e.student],
        )
        for e in entries
    ]


def read_class(path: Path) -> list[_Entry]:
    """Return the lines of a class.yml: exercise -> student -> {answer, mishap, scores or rejected}.

    Raises: InputError if the file is not there or names an unknown mishap.
    """
    if not path.is_file():
        raise InputError("no such sample class", expected="a class.yml", got=path)
    entries = []
    for assignment, students in require("yaml", extra="grading").safe_load(path.read_text("utf-8")).items():
        for student, words in students.items():
            scores = None if words.get("rejected") else words.get("scores", {})
            entry = _Entry(student, assignment, words.get("answer", ""), words.get("mishap", ""), scores)
            if entry.mishap and entry.mishap not in MISHAPS:
                raise InputError(
                    f"{path}: {student}", expected=f"a mishap of {sorted(MISHAPS)}", got=entry.mishap
                )
            entries.append(entry)
    return entries


def _fill(course: Course, sample: SampleClass, entries: list[_Entry]) -> dict[str, dict[str, Any]]:
    """Write the submissions unless they are there; return assignment -> student -> points or None."""
    slugs = list(dict.fromkeys(entry.assignment for entry in entries))
    recipe, note = _recipe(sample, slugs), course.root / NOTE
    if note.is_file() and (noted := json.loads(note.read_text("utf-8")))["recipe"] == recipe:
        return noted["expected"]
    from coursekit.grading.create import init_course
    from coursekit.grading.roster import import_roster

    sources = [sample.solutions / f"{slug}.py" for slug in slugs]
    try:
        init_course(course.root, sources=sources)
    except NbgraderError:
        if not note.is_file():
            raise
        # nbgrader lets no cell come or go under submissions. This folder is ours: its class starts over.
        course.gradebook.replace(course.root / "gradebook.before.db")
        init_course(course.root, sources=sources)
    roster = sample.class_file.with_name("students.csv")
    if roster.is_file():
        import_roster(course, roster)
    expected: dict[str, dict[str, Any]] = {slug: {} for slug in slugs}
    for entry in entries:
        data, points = _submission(entry, sample)
        expected[entry.assignment][entry.student] = points
        _write(course.submitted(entry.student, entry.assignment) / f"{entry.assignment}.ipynb", data)
    note.write_text(json.dumps({"recipe": recipe, "expected": expected}, indent=1), "utf-8")
    return expected


def _recipe(sample: SampleClass, slugs: list[str]) -> str:
    """Return a hash of every file that the class is made from."""
    files = [sample.class_file, sample.class_file.with_name("students.csv"), Path(__file__)]
    files.append(Path(__file__).with_name("mishaps.py"))
    for slug in slugs:
        files += [sample.solutions / f"{slug}.py", *sorted((sample.answers / slug).glob("*.py"))]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes() if path.is_file() else b"")
        digest.update(b"\0")
    return digest.hexdigest()


def _submission(entry: _Entry, sample: SampleClass) -> tuple[bytes, dict[str, float] | None]:
    """Return the bytes that a student hands in, and the points they must get."""
    from coursekit.notebooks.answers import expected_scores, read_answer
    from coursekit.notebooks.build import instructor_notebook, notebook_text, student_notebook
    from coursekit.notebooks.source import read_source

    exercise = read_source(sample.solutions / f"{entry.assignment}.py")
    points = {cell.grade_id: cell.points for cell in exercise.of_kind("tests")}
    instructor = instructor_notebook(exercise)
    cells: dict[str, str] = {}
    if entry.answer == "stub":
        points = dict.fromkeys(points, 0)
    else:
        cells = {cell.grade_id: cell.source for cell in exercise.of_kind("solution")}
        cells |= {cell.grade_id: WRITTEN_ANSWER for cell in exercise.of_kind("answer")}
        if entry.answer not in ("", "reference"):
            answer = read_answer(sample.answers / entry.assignment / f"{entry.answer}.py")
            cells, points = cells | answer.cells, expected_scores(answer, points)
    notebook = student_notebook(instructor)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = _without_markers(cells.get(grade_id, cell.source))
    data = notebook_text(notebook).encode()
    data = MISHAPS[entry.mishap](data) if entry.mishap else data
    if entry.scores is None:
        return data, None
    return data, dict.fromkeys(points, 0) if entry.scores == 0 else {**points, **entry.scores}


def _without_markers(source: str) -> str:
    return "\n".join(
        line for line in source.split("\n") if "### BEGIN SOLUTION" not in line and "### END" not in line
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != data:
        path.write_bytes(data)
