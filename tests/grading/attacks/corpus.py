"""What an attack is, and the desk at which one is handed in.

An attack is a small function; its docstring says what it tries, and `gain` what it would have of it. It
returns the text of solution cells by grade_id, or takes a `Desk` and hands in whatever it likes. What it does
not write stays a stub, but for `scale`, whose two points are the honest part.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SLUG = "toy_guarded"
ANSWERS = {
    "double": "def double(number):\n    return 2 * number",
    "account": "class Account:\n    balance = 0.0\n    def deposit(self, amount): self.balance += amount",
    "norm": "def norm(vector):\n    return math.sqrt(sum(x * x for x in vector))",
    "total": "def total(numbers):\n    return sum(numbers)",
    "scale": "def scale(numbers, factor):\n    return [factor * number for number in numbers]",
}
HONEST = 2.0
FULL = 12.0  # without the open answer
TESTS = {"test_double": 2, "test_double_hidden": 2, "test_account": 2, "test_norm": 3}
TESTS |= {"test_total": 1, "test_scale": 1, "test_scale_items": 1}

# What an attack is after. `grading.outcome` says how each is seen.
Gain = Literal[
    "points",  # more than the honest part is worth
    "secret",  # a canary on the student's page
    "mark",  # a file where the student must not write
    "others",  # something of another student's, or of the course's, changed
    "survivor",  # a process that runs after the grading
    "network",  # a connection
    "no_grade",  # the grader gives up, hangs, or has no result
    "script",  # something of the student's that a browser would run
    "resources",  # more than is allowed of what the attack counts itself
    "output",  # a notebook of megabytes for the instructor to open
]


@dataclass(frozen=True)
class Attack:
    """One submission that means harm.

    honest: the most points it may get. allowed: for `resources`, how much it may take.
    """

    name: str
    family: str
    make: Callable[..., Any]
    gain: Gain
    honest: float = HONEST
    allowed: float = 0.0


@dataclass(frozen=True)
class Target:
    """Where an attack is aimed; the strongest attacker knows all of it."""

    course: Path
    outside: Path
    port: int

    def aimed(self, source: str, name: str) -> str:
        """Return an attack's text with the words in capitals replaced."""
        words = {"COURSE_ROOT": self.course, "OUTSIDE": self.outside, "PORT": self.port, "ATTACK_NAME": name}
        for word, value in words.items():
            source = source.replace(word, str(value))
        return source


class Desk:
    """Where a submission is handed in: `folder` is the student's, `released` the notebook they were given."""

    def __init__(self, released: dict[str, Any], folder: Path, *, attack: str, target: Target) -> None:
        self.released, self.folder, self.attack, self.target = released, folder, attack, target
        self.path = folder / f"{SLUG}.ipynb"

    def notebook(self, **answers: str) -> dict[str, Any]:
        """Return the released notebook with the honest part and these answers."""
        notebook = copy.deepcopy(self.released)
        answers = {"scale": ANSWERS["scale"], **answers}
        for cell in notebook["cells"]:
            source = answers.get(grade_id(cell), "".join(cell["source"]))
            cell["source"] = self.target.aimed(source, self.attack)
        return notebook

    def write(self, submission: Mapping[str, Any] | bytes) -> None:
        """Hand in a notebook, or any bytes."""
        data = submission if isinstance(submission, bytes) else json.dumps(submission).encode()
        self.path.write_bytes(data)


def grade_id(cell: Mapping[str, Any]) -> str:
    """Return a cell's grade_id, or ""."""
    return cell["metadata"].get("nbgrader", {}).get("grade_id", "")


def hand_in(attack: Attack, desk: Desk) -> None:
    """Hand in an attack."""
    desk.folder.mkdir(parents=True, exist_ok=True)
    if inspect.signature(attack.make).parameters:
        attack.make(desk)
    else:
        desk.write(desk.notebook(**attack.make()))


class Family(list[Attack]):
    """The attacks of one file, in its order; calling it with a gain makes a decorator that adds one."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __call__(self, gain: Gain, **options: float) -> Callable[[Callable], Callable]:
        """Return a decorator that registers a function as an attack with this gain."""

        def register(make: Callable) -> Callable:
            assert make.__doc__, f"{make.__name__} does not say what it tries"
            self.append(Attack(make.__name__, self.name, make, gain, **options))
            return make

        return register


def edited(desk: Desk, change: Callable[[dict[str, Any]], Any], **answers: str) -> dict[str, Any]:
    """Return the desk's notebook with `change` applied to each test cell."""
    notebook = desk.notebook(**answers)
    for cell in notebook["cells"]:
        if grade_id(cell) in TESTS:
            change(cell)
    return notebook
