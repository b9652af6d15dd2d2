"""What Canvas and Moodle call a student's submission: read when it is collected, kept for the way back.

Feedback goes back under the names that the LMS itself gave. lms_names/<assignment>.json in the course folder
holds them, student -> the name up to the file's own; of work that was put in by hand it can be added by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coursekit.errors import InputError
from coursekit.grading.course import Course
from coursekit.grading.record import replace_text

# lastfirst_[LATE_]USER_UPLOAD_name.ipynb. Source: instructure/canvas-lms, lib/content_zipper.rb and
# infer_comment_context_from_filename of app/models/abstract_assignment.rb.
_CANVAS = re.compile(
    r"(?P<given>(?P<name>[^_/]+)_(?P<late>LATE_)?(?P<number>\d+)_(?P<upload>\d+)_)(?P<file>.+)"
)
# Full Name_ID_assignsubmission_file/name.ipynb; before Moodle 4.1 the folder's name ended with an underscore;
# without folders it is one name. Source: moodle/moodle, mod/assign/classes/downloader.php and
# mod/assign/feedback/file/importziplib.php.
_MOODLE = re.compile(
    r"(?P<given>(?P<name>[^/]+?)_(?P<number>\d+)_assignsubmission_file(?:_/?|/))(?P<file>.+)"
)


@dataclass(frozen=True)
class LmsName:
    """The parts of a name: whose, the LMS's number of the person, what stands before the file's own name.

    upload: Canvas' number of the file, which grows. late: whether Canvas marks it; Moodle does not say.
    """

    name: str
    number: str
    given: str
    file: str
    upload: int = 0
    late: bool | None = None


def canvas_name(name: str) -> LmsName | None:
    """Return the parts of a file's name if Canvas gave it.

    >>> canvas_name("lovelaceada_LATE_12_345_adding.ipynb").given
    'lovelaceada_LATE_12_345_'
    """
    if not (found := _CANVAS.fullmatch(name)):
        return None
    return LmsName(*found.group("name", "number", "given", "file"), int(found["upload"]), bool(found["late"]))


def moodle_name(path: PurePosixPath) -> LmsName | None:
    """Return the parts of the outermost name that Moodle gave: what lies inside it, a student named.

    >>> moodle_name(PurePosixPath("all/Ada Lovelace_7_assignsubmission_file/adding.ipynb")).given
    'Ada Lovelace_7_assignsubmission_file/'
    """
    tails = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
    found = next(filter(None, map(_MOODLE.fullmatch, tails)), None)
    return found and LmsName(*found.group("name", "number", "given", "file"))


def read_names(course: Course, assignment: str) -> dict[str, str]:
    """Return student -> what the LMS put before the name of the student's file.

    Raises: InputError if a person has written something else into the file.
    """
    path = _file(course, assignment)
    if not path.exists():
        return {}
    try:
        names = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read", expected="JSON", got=str(error)) from None
    wrong = [name for name in names.values() if not _is_given(name)] if isinstance(names, dict) else [names]
    if wrong:
        raise InputError(
            f"{path} holds something else than names of Canvas' or Moodle's",
            expected="such as lovelaceada_12_345_ or Ada Lovelace_12_assignsubmission_file/",
            got=repr(wrong[0])[:200],
        )
    return names


def write_names(course: Course, assignment: str, names: Mapping[str, str]) -> None:
    """Keep names for the way back; where there are none, no file is made."""
    if names:
        text = json.dumps(names, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        replace_text(_file(course, assignment), text)


def _is_given(name: object) -> bool:
    if not isinstance(name, str):
        return False
    found = moodle_name(PurePosixPath(f"{name}x")) or canvas_name(f"{name}x")
    return found is not None and found.given == name


def _file(course: Course, assignment: str) -> Path:
    return course.root / "lms_names" / f"{assignment}.json"
