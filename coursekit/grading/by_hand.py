"""Open answers: what waits for a person, with the rubric, and the points a person gives, stored at once.

The gradebook is nbgrader's, so points given here and in the formgrader are the same points.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from coursekit.errors import InputError, require
from coursekit.grading import journal
from coursekit.grading.course import Course
from coursekit.grading.intake import RejectedError, parse_answers
from coursekit.grading.nbgrader_tools import load_config

_SOLUTION = re.compile(r"### BEGIN SOLUTION\n(.*?)\n?### END SOLUTION", re.DOTALL)
MAX_COMMENT_CHARACTERS = 10_000


@dataclass(frozen=True)
class Question:
    """A cell that a person grades: what was asked, and the model answer with the rubric, as written."""

    grade_id: str
    max_score: float
    text: str
    rubric: str


@dataclass(frozen=True)
class OpenAnswer:
    """What a student wrote, and what a person has given for it; points is None until then."""

    student: str
    text: str
    points: float | None
    comment: str
    waiting: bool


def read_questions(course: Course, assignment: str) -> dict[str, Question]:
    """Return grade_id -> question, in the order of the instructor's notebook.

    Raises: InputError if the assignment is not there.
    """
    course.require(assignment)
    notebook = json.loads(course.source(assignment).read_bytes())
    questions, before = {}, ""
    for cell in notebook["cells"]:
        words, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
        if words.get("grade") and words.get("solution"):
            questions[words["grade_id"]] = _question(words, source, before)
        before = source if cell["cell_type"] == "markdown" else ""
    return questions


def students_who_answered(course: Course, assignment: str, *, grade_id: str) -> list[str]:
    """Return whose answer waits for a person or was read by one, sorted."""
    waiting = journal.waiting(course.gradebook, assignment)
    given = journal.by_hand(course.gradebook, assignment)
    return sorted({who for who, name in waiting | given.keys() if name == grade_id})


class OpenAnswers:
    """The answers to one question: `read` them, `store` points, at the end `write_pages`.

    One thread; holds the gradebook open.
    """

    def __init__(self, course: Course, assignment: str, *, question: Question) -> None:
        self.course, self.assignment, self.question = course, assignment, question
        self.touched: set[str] = set()
        self._config = load_config(course)
        self._book = require("nbgrader.api", extra="grading").Gradebook(f"sqlite:///{course.gradebook}")

    def close(self) -> None:
        """Let go of the database."""
        self._book.close()

    def read(self) -> list[OpenAnswer]:
        """Return the answers by student; not those left as released, which earn nothing by themselves."""
        self._book.db.rollback()  # sees what the formgrader wrote meanwhile
        cell = self.question.grade_id
        waiting = journal.waiting(self.course.gradebook, self.assignment)
        students = students_who_answered(self.course, self.assignment, grade_id=cell)
        return [self._answer(student, (student, cell) in waiting) for student in students]

    def store(self, student: str, *, points: float | None, comment: str) -> OpenAnswer:
        """Write points and comment into the gradebook and return the answer as it is now.

        Args:
            student: whose answer.
            points: 0 to the question's most; None lets the answer wait again.
            comment: what the student reads on the feedback page; "" for nothing.
        Raises: InputError if the student has no such answer, or the points are out of range.
        """
        from coursekit.grading.late import renew_penalty

        most = self.question.max_score
        if points is not None and not (math.isfinite(points) and 0 <= points <= most):
            raise InputError("points out of range", expected=f"0 to {most:g}", got=points)
        if len(comment) > MAX_COMMENT_CHARACTERS:
            raise InputError("the comment is too long", expected=f"{MAX_COMMENT_CHARACTERS} characters")
        self._book.db.rollback()
        grade, note = self._rows(student)
        grade.manual_score, grade.needs_manual_grade = points, points is None
        note.manual_comment = comment or None
        renew_penalty(self._book, self._config, self.assignment, student=student)
        if self.course.autograded(student, self.assignment).is_file():
            # A closed terminal never comes to `write_pages`; the next grading writes a page that is missing.
            self.course.feedback(student, self.assignment).unlink(missing_ok=True)
        self._book.db.commit()
        self.touched.add(student)
        return self._answer(student, points is None)

    def write_pages(self) -> None:
        """Write the feedback pages of those whose points or comments were stored."""
        from coursekit.grading.feedback import feedback_pages, write_feedback

        self._book.db.rollback()  # sees what the formgrader wrote meanwhile
        pages = feedback_pages(self.course, self.assignment, gradebook=self._book)
        for student in sorted(self.touched):
            if self.course.autograded(student, self.assignment).is_file():  # else it was rejected since
                write_feedback(self.course, self.assignment, student=student, pages=pages)

    def _answer(self, student: str, waiting: bool) -> OpenAnswer:
        grade, note = self._rows(student)
        text = _text(self.course, self.assignment, student, self.question.grade_id)
        return OpenAnswer(student, text, grade.manual_score, note.manual_comment or "", waiting)

    def _rows(self, student: str) -> tuple[Any, Any]:
        where = (self.question.grade_id, self.assignment, self.assignment, student)
        try:
            return self._book.find_grade(*where), self._book.find_comment(*where)
        except require("nbgrader.api", extra="grading").MissingEntry:
            raise InputError("no such answer", got=f"{self.question.grade_id} of {student}") from None


def answers_to_json(answers: list[OpenAnswer]) -> list[dict[str, Any]]:
    """Return the answers as plain data."""
    return [asdict(answer) for answer in answers]


def _question(words: dict[str, Any], source: str, before: str) -> Question:
    rubric = "\n\n".join(part.strip() for part in _SOLUTION.findall(source))
    asked = _SOLUTION.sub("", source).strip()
    # Where the cell itself only says "Your answer here.", the question stands in the one before it.
    text = asked if len(asked) > 60 or not before else f"{before.strip()}\n\n{asked}"
    return Question(words["grade_id"], float(words["points"]), text, rubric or "(the source has no rubric)")


def _text(course: Course, assignment: str, student: str, grade_id: str) -> str:
    try:
        given = parse_answers(course.autograded(student, assignment).read_bytes()).by_id.get(grade_id)
    except (OSError, RejectedError):
        given = None
    return given[-1].source if given else "(the submission cannot be read any more)"
