"""Record: the one writer. Scores go into nbgrader's gradebook and our journal, a transaction a submission."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coursekit.errors import require
from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.intake import RejectedError, parse_answers
from coursekit.grading.nbgrader_tools import load_config
from coursekit.grading.report import Result

# What nbgrader calls the cells of a notebook that have a grade or a comment.
_KINDS = ("grade_cells", "solution_cells", "task_cells")


class Recorder:
    """Writes results of one assignment into the course's gradebook. Use one, in one process."""

    def __init__(self, course: Course, assignment: str, *, version: str) -> None:
        nbgrader = require("nbgrader.api", extra="grading")
        self.course, self.assignment, self.version = course, assignment, version
        self.config = load_config(course)
        course_id = self.config.CourseDirectory.get("course_id", "default_course") or "default_course"
        self.gradebook = nbgrader.Gradebook(f"sqlite:///{course.gradebook}", course_id)
        with self._transaction():
            for statement in journal.CREATE:
                self._execute(statement)
        earlier = journal.read(course.gradebook, assignment)
        self._earlier_flags = {student: result.flags for student, (_, _, result) in earlier.items()}

    def close(self) -> None:
        """Let go of the database."""
        self.gradebook.close()

    def record(
        self,
        result: Result,
        *,
        submission: str,
        timestamp: str | None = None,
        unanswered: Collection[str] = (),
    ) -> Result:
        """Write the scores of a result, and return it with what a person graded by hand put in.

        Manual scores, extra credit and comments stay as they are.

        Args:
            result: what grading found.
            submission: hash of what was graded.
            timestamp: when it was handed in, as nbgrader writes it.
            unanswered: solution cells left as released.
        """
        book = self.gradebook
        book.update_or_create_student(result.student)
        with book.db.no_autoflush:  # nbgrader fills a new submission before it adds it to the session
            # None, too: the time of what was graded before is not the time of this.
            book.update_or_create_submission(self.assignment, result.student, timestamp=timestamp)
        with self._transaction():
            grades, comments = self._written(result.student)
            self._write_scores(result, grades)
            self._write_comments(result, comments, unanswered)
            self._write_penalty(result.student)
            self._execute(
                journal.UPSERT,
                journal.row(self.assignment, result, submission=submission, version=self.version),
            )
        hand = journal.by_hand(self.course.gradebook, self.assignment, student=result.student)
        return journal.with_hand_grades(result, hand)

    def mark_changed_answers(self, student: str, notebook: bytes) -> list[str]:
        """Let hand-graded answers wait for a person again where their text changed; return the flags.

        Call it before `write_autograded`: the text that was graded is the one in the autograded notebook.
        It is a transaction of its own, so that a run killed between the two cannot lose the change.
        """
        earlier = _texts(self.course.autograded(student, self.assignment))
        now = {
            grade_id: given[-1].source.strip() for grade_id, given in parse_answers(notebook).by_id.items()
        }
        flags = []
        with self._transaction():
            for grade in self._graded_answers(student):
                changed = earlier.get(grade.name) != now.get(grade.name)
                flag = f"{journal.CHANGED}:{grade.name}"
                still = grade.needs_manual_grade and flag in self._earlier_flags.get(student, ())
                flags += [flag] if still or (changed and earlier) else []
                grade.needs_manual_grade = bool(grade.needs_manual_grade or changed)
        return flags

    def _graded_answers(self, student: str) -> list[Any]:
        """Return nbgrader's grades of written answers that a person gave points for."""
        nbgrader = require("nbgrader.api", extra="grading")
        try:
            notebook = self.gradebook.find_submission_notebook(self.assignment, self.assignment, student)
        except nbgrader.MissingEntry:
            return []
        names = self._answer_names()
        return [grade for grade in notebook.grades if grade.manual_score is not None and grade.name in names]

    def _answer_names(self) -> set[str]:
        """Return the cells that a student writes; those among them with points are graded by a person."""
        notebook = self.gradebook.find_notebook(self.assignment, self.assignment)
        return {cell.name for cell in notebook.solution_cells}

    def stamp_exercise(self) -> None:
        """Note which version of the exercise the gradebook's cells come from."""
        with self._transaction():
            self._execute(journal.STAMP, {"assignment": self.assignment, "version": self.version})

    def write_autograded(self, student: str, notebook: dict[str, Any], *, timestamp: str | None) -> None:
        """Put the executed notebook where the formgrader and the feedback look for it."""
        path = self.course.autograded(student, self.assignment)
        path.parent.mkdir(parents=True, exist_ok=True)
        if timestamp is not None:
            replace_text(path.parent / "timestamp.txt", timestamp + "\n")
        replace_text(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")

    def drop_autograded(self, student: str) -> None:
        """Remove the executed notebook of an earlier submission that another has replaced."""
        self.course.autograded(student, self.assignment).unlink(missing_ok=True)

    def _written(self, student: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return grade_id -> nbgrader's grade, and grade_id -> its comment, of a submission.

        All at once: to find each by its name takes nbgrader a query over five tables.
        """
        notebook = self.gradebook.find_notebook(self.assignment, self.assignment)
        names = {cell.id: cell.name for kind in _KINDS for cell in getattr(notebook, kind)}
        graded = self.gradebook.find_submission_notebook(self.assignment, self.assignment, student)
        grades = {names[grade.cell_id]: grade for grade in graded.grades}
        return grades, {names[comment.cell_id]: comment for comment in graded.comments}

    def _write_scores(self, result: Result, grades: Mapping[str, Any]) -> None:
        answers = self._answer_names() if result.status == "graded" else set()
        for cell in result.cells:
            grade = grades[cell.grade_id]
            grade.auto_score = cell.score
            if grade.manual_score is not None and cell.grade_id in answers:
                continue  # what was read once is read again only if it changed: mark_changed_answers
            # nbgrader's own rule: a hand-given score is looked at again when the cell was run again.
            grade.needs_manual_grade = grade.manual_score is not None or cell.score is None

    def _write_comments(
        self, result: Result, comments: Mapping[str, Any], unanswered: Collection[str]
    ) -> None:
        rejected = result.cells[0].message if result.status == "rejected" and result.cells else None
        for name in self._answer_names():
            comments[name].auto_comment = rejected or ("No response." if name in unanswered else None)

    def _write_penalty(self, student: str) -> None:
        from coursekit.grading.late import renew_penalty

        renew_penalty(self.gradebook, self.config, self.assignment, student=student)

    def _execute(self, statement: str, values: dict[str, Any] | None = None) -> None:
        from sqlalchemy import text

        self.gradebook.db.execute(text(statement), values or {})

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            yield
            self.gradebook.db.commit()
        except BaseException:
            self.gradebook.db.rollback()
            raise


def valid_timestamp(timestamp: str | None) -> bool:
    """Return whether nbgrader can read this as the time of a submission."""
    from nbgrader.utils import parse_utc

    try:
        parse_utc(timestamp)
    except (ValueError, OverflowError, TypeError, AttributeError):
        return False
    return True


def _texts(autograded: Path) -> dict[str, str]:
    """Return grade_id -> text of an executed notebook; nothing where there is none."""
    try:
        by_id = parse_answers(autograded.read_bytes()).by_id
    except (OSError, RejectedError):
        return {}
    return {grade_id: given[-1].source.strip() for grade_id, given in by_id.items()}


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, over a read-only one too; what is no text, as question marks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.replace(path)
