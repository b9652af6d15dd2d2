"""The map of the course: which chapter, exercise and topic exists, and the tables that say so."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coursekit.errors import InputError, require

README_START, README_END = "<!-- course map -->", "<!-- /course map -->"
_DEVICES = {"cpu": "CPU", "gpu": "GPU", "cpu, better with gpu": "CPU, better with a GPU"}


@dataclass(frozen=True)
class Chapter:
    """A chapter that course.yml names; it exists once its page does. No exercise: 0 minutes."""

    root: Path
    slug: str
    part: str
    part_title: str
    title: str
    modules: tuple[str, ...]
    read_minutes: int
    exercise_minutes: int
    device: str
    listed: bool

    @property
    def page(self) -> Path:
        """The page, relative to the checkout."""
        return Path("book", self.part, f"{self.slug}.md")

    @property
    def exercise(self) -> Path:
        """The learner's notebook, relative to the checkout."""
        return Path("exercises", self.slug, f"{self.slug}.ipynb")

    @cached_property
    def has_page(self) -> bool:
        """Whether the page is there and listed; a page outside the table of contents is a draft."""
        return self.listed and (self.root / self.page).is_file()

    @cached_property
    def has_exercise(self) -> bool:
        """Whether the learner's notebook is there."""
        return (self.root / self.exercise).is_file()

    @cached_property
    def modules_there(self) -> tuple[str, ...]:
        """The modules that are written."""
        return tuple(name for name in self.modules if _is_module(self.root, name))

    @property
    def device_name(self) -> str:
        """The device as a reader says it."""
        return _DEVICES.get(self.device, self.device)


@dataclass(frozen=True)
class Topic:
    """A row of the curriculum: a topic of the documents, and what the course owes it."""

    id: str
    document: str
    text: str
    chapter: str
    shown: str
    utility: str
    exercise: str

    @property
    def label(self) -> str:
        """The name under which pages link to the topic's row."""
        return f"topic-{self.id.lower()}"


def read_course(root: Path | str) -> dict[str, Any]:
    """Return what course.yml of the checkout at `root` says."""
    yaml = require("yaml", extra="notebooks")
    return yaml.safe_load((Path(root) / "course.yml").read_text(encoding="utf-8"))


def read_chapters(root: Path | str) -> list[Chapter]:
    """Return the chapters in the order of course.yml.

    Raises: InputError if a chapter stands in a part that course.yml does not name.
    """
    course = read_course(root)
    listed = listed_pages(Path(root, "book"))
    chapters = []
    for slug, entry in course["chapters"].items():
        if entry["part"] not in course["parts"]:
            raise InputError(
                f"chapter {slug} of course.yml stands in no part",
                expected=list(course["parts"]),
                got=entry["part"],
            )
        minutes = entry["minutes"]
        chapters.append(
            Chapter(
                root=Path(root),
                slug=slug,
                part=entry["part"],
                part_title=course["parts"][entry["part"]],
                title=entry["title"],
                modules=tuple(entry.get("modules", ())),
                read_minutes=minutes["read"],
                exercise_minutes=minutes.get("exercise", 0),
                device=entry["device"],
                listed=f"{entry['part']}/{slug}" in listed,
            )
        )
    return chapters


def listed_pages(book: Path | str) -> list[str]:
    """Return the pages that `_toc.yml` of the folder `book` lists, in the book's order, as "part/slug"."""
    yaml = require("yaml", extra="notebooks")
    found: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, dict):
            found.extend(entry[key] for key in ("root", "file") if key in entry)
            walk(list(entry.values()))
        elif isinstance(entry, list):
            for inner in entry:
                walk(inner)

    walk(yaml.safe_load(Path(book, "_toc.yml").read_text(encoding="utf-8")))
    return found


def read_topics(path: Path | str) -> list[Topic]:
    """Return the rows of the curriculum's CSV file, in its order.

    Raises: InputError if two rows have one id.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        topics = [Topic(*row) for row in list(csv.reader(file))[1:] if row]
    ids = [topic.id for topic in topics]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise InputError(f"{path}: two rows have one id", got=twice)
    return topics


def readme_table(chapters: Sequence[Chapter]) -> str:
    """Return the Markdown table of README: chapter, exercise, module, minutes, device, by part."""
    lines = ["| chapter | exercise | module | minutes | device |", "|---|---|---|---|---|"]
    for chapter in chapters:
        page = _link(chapter.title, chapter.page, there=chapter.has_page)
        exercise = _link("notebook", chapter.exercise, there=chapter.has_exercise)
        modules = "<br>".join(f"`{name}`" for name in chapter.modules_there) or "not there yet"
        minutes = f"{chapter.read_minutes} + {chapter.exercise_minutes}"
        lines.append(f"| {page} | {exercise} | {modules} | {minutes} | {chapter.device_name} |")
    return "\n".join([*lines, "", "Minutes: reading + exercise."])


def exercises_page(chapters: Sequence[Chapter]) -> str:
    """Return the text of exercises/README.md: the exercises in the book's order."""
    lines = [
        "# Exercises",
        "",
        "Made from course.yml by `coursekit book map`. `make lab` opens your own copies in JupyterLab; the",
        "ones here stay as they are. `coursekit check NOTEBOOK` runs a notebook's visible tests and counts",
        "points.",
        "",
        "| exercise | chapter | minutes | device |",
        "|---|---|---|---|",
    ]
    for chapter in chapters:
        notebook = _link(chapter.title, Path(chapter.slug, chapter.exercise.name), there=chapter.has_exercise)
        page = _link(f"{chapter.part}/{chapter.slug}", Path("..") / chapter.page, there=chapter.has_page)
        lines.append(f"| {notebook} | {page} | {chapter.exercise_minutes} | {chapter.device_name} |")
    return "\n".join(lines) + "\n"


def write_map(root: Path | str, *, check: bool = False) -> list[Path]:
    """Write README's table and exercises/README.md; return the files that were stale.

    With `check` it only looks and writes nothing.

    Raises: InputError if README.md does not have its two marker lines.
    """
    root = Path(root)
    chapters = read_chapters(root)
    wanted = {
        root / "README.md": _between_markers(root / "README.md", readme_table(chapters)),
        root / "exercises" / "README.md": exercises_page(chapters),
    }
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in [] if check else stale:
        path.write_text(wanted[path], encoding="utf-8")
    return stale


def _between_markers(path: Path, table: str) -> str:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    start, end = text.find(README_START), text.find(README_END)
    if start < 0 or end < start:
        raise InputError(
            f"{path.name} has no place for the map",
            expected=f"a line {README_START} and, below it, {README_END}",
        )
    return f"{text[:start]}{README_START}\n{table}\n{text[end:]}"


def _link(text: str, path: Path, *, there: bool) -> str:
    return f"[{text}]({path.as_posix()})" if there else f"{text} (not there yet)"


def _is_module(root: Path, name: str) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
