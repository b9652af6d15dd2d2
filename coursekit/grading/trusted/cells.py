"""The trusted process: runs locked and test cells, and asks the student's side for what the student wrote."""

from __future__ import annotations

import ast
import io
import json
import linecache
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import CodeType, ModuleType
from typing import Any

from coursekit.grading.trusted import frames
from coursekit.grading.trusted.proxies import StoppedError, Student, StudentError, stand_ins
from coursekit.notebooks.forbidden import parse_cell
from coursekit.notebooks.probes import probes_run_by

Output = dict[str, Any]


def serve(channel: socket.socket) -> None:
    """Run cells as they are sent over `channel` until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    student = Student(lambda request: _ask(channel, request))
    namespace = _fresh_main()
    with probes_run_by(student.probe):
        while True:
            try:
                kind, body = frames.receive(channel)
            except EOFError:
                return
            if kind != frames.RUN:  # a reply that came after its cell had been stopped
                continue
            outputs = run_cell(json.loads(body), namespace, student)
            channel.sendall(frames.frame(frames.DONE, json.dumps(outputs).encode()))


def run_cell(job: dict[str, Any], namespace: dict[str, Any], student: Student) -> list[Output]:
    """Return the outputs of a locked or test cell, as a notebook holds them.

    Args:
        job: "source", "name" (its grade_id), "student_names" (those it may ask the student's side for),
            "output_bytes" (how much printed text is kept).
        namespace: names of the cells before it; changed by the cell.
        student: answers for the student's names.
    """
    filename = f"<{job['name']}>"
    out, err = _Bounded(job["output_bytes"]), _Bounded(job["output_bytes"])
    students: dict[str, Any] = {}
    with redirect_stdout(out), redirect_stderr(err):
        try:
            tree = _parse(job["source"], filename)
            students = stand_ins(tree, names=job["student_names"], known=namespace, student=student)
            namespace.update(students)
            with _interrupts(signal.default_int_handler):
                last = _shown(_run(tree, filename, namespace))
        # Whatever a test raises or calls, exit() too, this process goes on to the next one.
        except BaseException as error:
            last = [_error(error, filename)]
    for name in students:
        # The next test reads the student's values anew: a cell between may have changed them.
        namespace.pop(name, None)
    return [*_stream("stdout", out), *_stream("stderr", err), *last]


def _ask(channel: socket.socket, request: bytes) -> bytes:
    with _interrupts(signal.SIG_IGN):  # half a message read would be the end of all messages
        channel.sendall(frames.frame(frames.ASK, request))
        kind, body = frames.receive(channel)
    if kind == frames.NONE:
        raise StoppedError(**json.loads(body))
    return body


@contextmanager
def _interrupts(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _fresh_main() -> dict[str, Any]:
    """Return the namespace of a new `__main__`: dataclasses and `inspect` look their module up by name."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    return vars(main)


def _parse(source: str, filename: str) -> ast.Module:
    # A probe's source is read from here, and so are the lines of a traceback.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    tree = parse_cell(source)
    if tree is None:
        compile(source, filename, "exec")  # raises the SyntaxError itself, unless the cell is all magic
        raise SyntaxError("not plain Python: a cell magic")
    return tree


def _run(tree: ast.Module, filename: str, namespace: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last expression, None where it ends with a statement."""
    *body, last = tree.body or [ast.Pass()]
    ends_with_value = isinstance(last, ast.Expr)
    statements = ast.Module(body=body if ends_with_value else [*body, last], type_ignores=[])
    exec(_compiled(statements, filename, "exec"), namespace)
    if not isinstance(last, ast.Expr):
        return None
    return eval(_compiled(ast.Expression(last.value), filename, "eval"), namespace)


def _compiled(tree: ast.Module | ast.Expression, filename: str, mode: str) -> CodeType:
    # Without dont_inherit this file's own __future__ import would hold in the cell as well.
    return compile(ast.fix_missing_locations(tree), filename, mode, dont_inherit=True)


def _shown(value: Any) -> list[Output]:
    if value is None:
        return []
    data = {"text/plain": repr(value)[:10_000]}
    return [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}]


def _error(error: BaseException, filename: str) -> Output:
    name = error.name if isinstance(error, StoppedError) else type(error).__name__
    frames_here = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    lines = [f"line {frame.lineno} of this cell:  {frame.line}" for frame in frames_here[:1]]
    lines += [f"  {error.place}"] if isinstance(error, StudentError) and error.place else []
    text = str(error)[:10_000]
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": [*lines, f"{name}: {text}"]}


def _stream(name: str, written: _Bounded) -> list[Output]:
    text = written.getvalue()
    return [{"output_type": "stream", "name": name, "text": text}] if text else []


class _Bounded(io.StringIO):
    """Text that stops growing: a test may print what a student's function returned."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def write(self, text: str) -> int:
        super().write(text[: self._left])
        self._left -= min(self._left, len(text))
        return len(text)
