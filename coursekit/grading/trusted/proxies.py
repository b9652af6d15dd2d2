"""Stand-ins for a student's names in the trusted process."""

from __future__ import annotations

import ast
from collections.abc import Callable, Container
from typing import Any

from coursekit.grading.trusted.codec import CodecError, decode, encode
from coursekit.notebooks.plain import NotPlainError, check_plain
from coursekit.notebooks.probes import ProbeError
from coursekit.notebooks.wrong import WrongAnswer

# Sends a request to the student's kernel and returns the reply's bytes; raises StoppedError for none.
Ask = Callable[[bytes], bytes]


class StoppedError(BaseException):
    """The student's side gave no answer; no `except Exception` of a test goes on after it.

    Args: what the outputs call it, and a sentence.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(text)


class StudentError(Exception):
    """What a student's code raised, told by its side; `place` is the line where. Subclasses bear its name."""

    place = ""


class Student:
    """The student's side as the trusted process sees it: names to call, read or send a probe to."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def call(self, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Return what the student's `name(*args, **kwargs)` returns.

        Raises: ProbeError for arguments that are no plain data; StudentError for whatever it raised.
        """
        given = {**dict(enumerate(args, start=1)), **kwargs}
        for which, value in given.items():
            _require_plain(value, f"argument {which} of {name}")
        return self._result({"name": name, "args": list(args), "kwargs": kwargs})

    def read(self, name: str) -> Any:
        """Return the value of a student's name. Raises: StudentError if there is none, or it is not plain."""
        return self._result({"name": name})

    def probe(self, source: str, name: str, args: tuple) -> Any:
        """Return what a probe returns there; for `coursekit.notebooks.probes.probes_run_by`."""
        return self._result({"name": name, "source": source, "args": list(args)})

    def _result(self, request: dict[str, Any]) -> Any:
        try:
            data = encode(request)
        except CodecError as error:
            raise ProbeError(f"{request['name']}: {error}") from None
        try:
            reply = decode(self._ask(data))
        except CodecError as error:
            raise _student_error("CodecError", f"the answer could not be read ({error})", "") from None
        if type(reply) is dict and list(reply) == ["value"]:
            return reply["value"]
        raise _student_error(*_error_of(reply))


class StudentFunction:
    """Stands for one of the student's names in a test cell."""

    def __init__(self, student: Student, name: str) -> None:
        self._student, self.__name__ = student, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the student's function returns for these arguments."""
        return self._student.call(self.__name__, args, kwargs)

    def __repr__(self) -> str:
        return f"<the student's {self.__name__}>"


def stand_ins(tree: ast.Module, *, names: Container[str], known: Container[str], student: Student) -> dict:
    """Return what a test cell needs in its namespace for the student's names that it uses.

    A name that is only called gets a stand-in; one that is also read gets its value, if that is plain data.

    Args:
        tree: the test cell.
        names: names of the exercise's solution cells. Any other stays undefined: a helper that a test forgot
            to import must not be the student's to write.
        known: names that the trusted namespace holds already; these are never the student's.
        student: the side to ask.
    """
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    wanted = {
        node.id: StudentFunction(student, node.id)
        for node in used
        # A builtin's name too, if the exercise is to write it: the builtin itself would pass the test.
        if node.id in names and node.id not in known
    }
    read = {node.id for node in used if node.id in wanted and id(node) not in called}
    return {name: _value_of(name, wanted[name], student) if name in read else wanted[name] for name in wanted}


def _value_of(name: str, function: StudentFunction, student: Student) -> Any:
    try:
        return student.read(name)
    except (StudentError, WrongAnswer):
        return function


def _require_plain(value: Any, where: str) -> None:
    try:
        check_plain(value, where)
    except NotPlainError as error:
        raise ProbeError(f"{error}; only plain data travels, use a probe") from None


def _error_of(reply: Any) -> tuple[str, str, str]:
    parts = reply.get("error") if type(reply) is dict else None
    if type(parts) is list and len(parts) == 3 and all(type(part) is str for part in parts):
        name, text, place = parts
        return name, text, place
    return "CodecError", "the answer could not be read", ""


def _student_error(name: str, text: str, place: str) -> Exception:
    if name == "WrongAnswer":
        return WrongAnswer(text[:2000])
    name = name if name.isidentifier() and len(name) <= 100 else "Exception"
    error = type(name, (StudentError,), {})(text[:2000])
    error.place = place[:2000]
    return error
