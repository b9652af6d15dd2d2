"""What can be seen after a grading: what an attack had of it, by its gain."""

from __future__ import annotations

import base64
import hashlib
import re
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from .corpus import Attack

OUTPUT_BYTES = 5 * 10**6
WATCHED = (
    "SELECT name, source FROM source_cell ORDER BY id",
    "SELECT id, max_score FROM grade_cells ORDER BY id",
    "SELECT manual_score, auto_score, extra_credit FROM grade WHERE notebook_id IN (SELECT n.id FROM "
    "submitted_notebook n JOIN submitted_assignment s ON s.id = n.assignment_id "
    "WHERE s.student_id = 'a_witness') ORDER BY id",
    "SELECT submission, version, result FROM coursekit_journal WHERE student = 'a_witness'",
)
KEPT = ("nbgrader_config.py", "source/**/*", "release/**/*", "*/a_witness/**/*", "submitted/z_neighbour/**/*")


@dataclass
class Outcome:
    """What a grading left: of one submission, and of what is everybody's.

    score: None if there is no grade. page: what the student gets back. size: bytes of what the instructor
    opens. changed: whether something of others' or of the course's is not as it was.
    """

    score: float | None = None
    page: str = ""
    size: int = 0
    changed: bool = False
    survivors: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)


def gained(attack: Attack, outcome: Outcome, canaries: Iterable[str]) -> bool:
    """Return whether the attack got what it was after."""
    return {
        "points": lambda: outcome.score is not None and outcome.score > attack.honest,
        "secret": lambda: leaks(outcome.page, canaries),
        "mark": lambda: attack.name in outcome.marks,
        "others": lambda: outcome.changed,
        "survivor": lambda: bool(outcome.survivors),
        "network": lambda: attack.name in outcome.callers,
        "no_grade": lambda: outcome.score is None,
        "script": lambda: runs_script(outcome.page, attack.name),
        "resources": lambda: took(outcome.page) > attack.allowed,
        "output": lambda: outcome.size > OUTPUT_BYTES,
    }[attack.gain]()


def took(page: str) -> float:
    """Return how much an attack says it took; 0 where it was stopped before it could say."""
    return max((float(number) for number in re.findall(r"TOOK (\d+)", page)), default=0.0)


def leaks(page: str, canaries: Iterable[str]) -> bool:
    """Return whether a secret stands in a page, as it is or thinly dressed."""
    forms = {form for canary in canaries for form in _forms(canary)}
    return any(form in page for form in forms)


def _forms(canary: str) -> list[str]:
    data = canary.encode()
    return [canary, canary[::-1], data.hex(), base64.b64encode(data).decode().rstrip("=")[:-2]]


def runs_script(page: str, name: str) -> bool:
    """Return whether a browser would run something with `name` in it."""
    parser = _Scripts(name)
    parser.feed(page)
    parser.close()
    return parser.found


class _Scripts(HTMLParser):
    """Looks for `name` where a browser runs it: scripts, event handlers, addresses with a scheme of code."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.found, self._inside = name, False, False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script"
        for key, value in attributes:
            value = unquote(re.sub(r"\s", "", value or "")).lower()
            code = key.startswith("on") or value.startswith(("javascript:", "vbscript:", "data:text/html"))
            self.found |= self.name in value and (code or key == "srcdoc")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.found |= self._inside and f"{self.name}()" in data


def snapshot(course: Path) -> str:
    """Return a hash of all in a course folder that no attack may change."""
    digest = hashlib.sha256()
    for pattern in KEPT:
        for path in sorted(p for p in course.glob(pattern) if p.is_file()):
            digest.update(f"{path.relative_to(course)} {path.stat().st_mode}\n".encode() + path.read_bytes())
    with closing(sqlite3.connect(f"file:{course / 'gradebook.db'}?mode=ro", uri=True, timeout=30)) as book:
        for query in WATCHED:
            digest.update(repr(book.execute(query).fetchall()).encode())
    return digest.hexdigest()


def marks(outside: Path, names: Collection[str]) -> list[str]:
    """Return which of the names are files where no student may write, and remove them."""
    import numpy as np

    found = []
    for folder in (outside, Path(np.__file__).parent, Path("/dev/shm")):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name in names:
                found.append(path.name)
                path.unlink()
    return found
