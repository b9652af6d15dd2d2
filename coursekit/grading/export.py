"""Exporters for nbgrader's own command and for ours.

`nbgrader export --exporter coursekit.grading.export.CanvasExport --to grades.csv`
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import ExportPlugin

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.gradesheet import Gradesheet, Rows, canvas_rows, csv_rows, moodle_rows, read_gradesheet
from coursekit.grading.late import renew_penalties
from coursekit.grading.record import replace_text


class CsvExport(ExportPlugin):
    """Writes a line for each student and exercise: points, penalty, what waits, which version graded it."""

    default_name = "grades.csv"

    def rows(self, sheet: Gradesheet) -> Rows:
        """Return the lines of the file."""
        return csv_rows(sheet)

    def export(self, gradebook: Gradebook) -> Gradesheet:
        """Write the file `to` names, whole or not at all, and return what was exported."""
        course = Course(Path(gradebook.engine.url.database).parent)
        names = [str(name) for name in self.assignment]
        students = [str(name) for name in self.student]
        # Points that were given in the formgrader, or an extension since, change what lateness costs.
        known = [each.name for each in gradebook.assignments]
        renew_penalties(gradebook, course, [name for name in known if not names or name in names])
        sheet = read_gradesheet(gradebook, course, assignments=names, students=students)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows(sheet))
        replace_text(Path(self.to or self.default_name), text.getvalue())
        return sheet


class CanvasExport(CsvExport):
    """Writes the columns that Canvas' gradebook imports."""

    default_name = "grades_canvas.csv"

    def rows(self, sheet: Gradesheet) -> Rows:
        """Return the lines of the file."""
        return canvas_rows(sheet)


class MoodleExport(CsvExport):
    """Writes the columns that Moodle's grade import reads."""

    default_name = "grades_moodle.csv"

    def rows(self, sheet: Gradesheet) -> Rows:
        """Return the lines of the file."""
        return moodle_rows(sheet)


EXPORTERS = {"csv": CsvExport, "canvas": CanvasExport, "moodle": MoodleExport}


def export_grades(
    course: Course,
    destination: Path,
    *,
    format: str = "csv",
    assignments: Collection[str] = (),
    students: Collection[str] = (),
) -> Gradesheet:
    """Write the grades of a course to `destination` and return them.

    Args:
        course: the course folder.
        destination: the file to write.
        format: csv, canvas or moodle.
        assignments: exercises to write; all if none is named.
        students: ids of students to write; all if none is named.
    Raises: InputError for a format or a name that is not there, or a course without a gradebook.
    """
    if format not in EXPORTERS:
        raise InputError("no such format", expected=" or ".join(EXPORTERS), got=repr(format))
    if not course.gradebook.is_file():
        raise InputError(f"{course.root} has no gradebook yet", fix="grade something first")
    plugin = EXPORTERS[format](to=str(destination), assignment=list(assignments), student=list(students))
    with Gradebook(f"sqlite:///{course.gradebook}") as gradebook:
        return plugin.export(gradebook)
