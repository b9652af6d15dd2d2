"""What the exercises need to know of `course.yml`."""

from __future__ import annotations

from pathlib import Path

from coursekit.errors import InputError, require


def release_address(course_file: Path | str) -> tuple[str, str]:
    """Return the address and branch of the public repository without solutions; ("", branch) while it is
    not set.

    Raises: InputError if the file is missing, no YAML, or has no `chapters`.
    """
    path = Path(course_file)
    if not path.is_file():
        raise InputError(
            "no course file", expected="course.yml", got=path, fix="say where with --course-file"
        )
    yaml = require("yaml", extra="notebooks")
    try:
        course = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML", got=" ".join(str(error).split())) from error
    if not isinstance(course, dict) or "chapters" not in course:
        raise InputError(
            f"{path} is no map of a course", expected="a key 'chapters'", got=type(course).__name__
        )
    return course.get("release_repository") or "", course.get("branch") or "main"
