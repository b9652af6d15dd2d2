"""The error of a test that a learner's answer does not pass."""

from __future__ import annotations

import linecache
import traceback
from types import TracebackType

from coursekit.errors import CoursekitError


class WrongAnswer(CoursekitError, AssertionError):
    """An answer is not what the test expects; the message is all that a learner needs to read."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the test's line and the message, not the insides of coursekit."""
        place = failing_line(self.__traceback__)
        return [*([place] if place else []), f"{type(self).__name__}: {self}"]


def failing_line(trace: TracebackType | None) -> str:
    """Return the outermost line of a notebook cell in a traceback, as 'line 3: code', or ""."""
    for frame in traceback.extract_tb(trace):
        in_cell = "ipykernel_" in frame.filename or frame.filename.startswith("<ipython-input")
        if in_cell and frame.lineno:
            code = linecache.getline(frame.filename, frame.lineno).strip()
            return f"line {frame.lineno} of this cell:  {code}"
    return ""


def sentence(fact: str, hint: str) -> str:
    """Return the fact, and after a semicolon the hint where there is one."""
    return f"{fact}; {hint}" if hint else fact


def is_unwritten(name: str, text: str) -> bool:
    """Return whether an error is a stub's NotImplementedError, raised here or on a rank of a `launch`."""
    if name == "RankError":
        return text.split("\n")[0].endswith("failed first: NotImplementedError")
    return name == "NotImplementedError" and not text
