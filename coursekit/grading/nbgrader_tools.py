"""nbgrader's own converters, called on a course folder with the folder's own configuration."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coursekit.errors import CoursekitError, require
from coursekit.grading.course import CONFIG_NAME, Course

if TYPE_CHECKING:
    from collections.abc import Iterator

    from traitlets.config import Config


FEEDBACK_PAGE = "coursekit.grading.feedback_page.FeedbackPage"


class NbgraderError(CoursekitError):
    """nbgrader refused; the message holds what it said."""


def load_config(course: Course) -> Config:
    """Return the course's nbgrader_config.py as nbgrader itself would read it."""
    require("nbgrader", extra="grading")
    find_programs()
    from traitlets.config.loader import PyFileConfigLoader

    return PyFileConfigLoader(CONFIG_NAME, path=str(course.root)).load_config()


def find_programs() -> None:
    """Put this Python's programs on the PATH if they are not: nbgrader calls alembic by name."""
    if not shutil.which("alembic"):
        here = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", "")])


def generate_assignment(course: Course, assignment: str) -> None:
    """Write release/ and the gradebook's cells from the source, as `nbgrader generate_assignment` does."""
    require("nbgrader", extra="grading")
    from nbgrader.converters import GenerateAssignment

    Conversion(GenerateAssignment, course, assignment).run("*")


class Conversion:
    """One of nbgrader's converters with the course's configuration, to be run for one student after another.

    Args:
        converter: a subclass of `nbgrader.converters.base.BaseConverter`.
        course: the course folder; the configuration is read once.
        assignment: the exercise's slug.
    """

    def __init__(self, converter: Any, course: Course, assignment: str) -> None:
        from nbgrader.coursedir import CourseDirectory

        config = load_config(course)
        # Folders made before there was a page of ours do not name it.
        config.GenerateFeedback.setdefault("exporter_class", FEEDBACK_PAGE)
        self.folder = CourseDirectory(
            config=config, root=str(course.root), assignment_id=assignment, notebook_id="*"
        )
        log = logging.getLogger("coursekit.nbgrader")
        self.app = converter(coursedir=self.folder, config=config, force=True, log=log)

    def run(self, student: str) -> None:
        """Convert the notebooks of a student, or of all with "*". Raises: NbgraderError."""
        self.folder.student_id = student
        with _collected_log() as lines:
            try:
                self.app.start()
            except Exception as error:
                said = next((line for line in lines if "Error: " in line), str(error) or "; ".join(lines))
                what = f"{type(self.app).__name__} failed on {self.folder.assignment_id}"
                raise NbgraderError(f"nbgrader's {what}: {said}") from error


@contextmanager
def _collected_log() -> Iterator[list[str]]:
    """Catch what nbgrader logs: it is shown if it fails and is noise if it does not."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                lines.append(record.getMessage().strip().splitlines()[-1][:300])

    logger, handler = logging.getLogger("coursekit.nbgrader"), Collector()
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
