"""What runs in the student's kernel to answer a test: one call, one probe or one name, as plain data.

Nothing here protects anything. Student code may have replaced all of it, and may answer with whatever it
likes: all of that is the student's answer, and the trusted side reads it as such.
"""

from __future__ import annotations

import base64
import linecache
import traceback
from types import TracebackType
from typing import Any

from coursekit.grading.trusted.codec import decode, encode
from coursekit.notebooks.plain import NotPlainError, as_plain

MAX_TEXT = 2000


def answer(request: str, namespace: dict[str, Any]) -> str:
    """Return the reply to a request of the trusted side, both as base64 text of `codec` bytes.

    Args:
        request: a dict with "name", and "args" and "kwargs" for a call, or "source" and "args" for a probe.
        namespace: the kernel's global names.
    Returns: a dict with "value", or "error" (name of the type, message, place) in its stead.
    """
    try:
        wanted = decode(base64.b64decode(request))
        where = f"the result of {wanted['name']}" if "args" in wanted else wanted["name"]
        value = as_plain(_result(wanted, namespace), where)
        reply = encode({"value": value})
    except NotPlainError as error:
        # The sentence that the learner's own notebook gives for it.
        reply = encode({"error": ["WrongAnswer", str(error)[:MAX_TEXT], ""]})
    # A student's function may also call exit(); that is its answer, and the kernel goes on.
    except BaseException as error:
        reply = encode({"error": describe(error)})
    return base64.b64encode(reply).decode()


def describe(error: BaseException) -> list[str]:
    """Return the type's name, the message and the innermost line in a notebook's cell, each bounded."""
    text = str(error).encode("utf-8", "replace").decode()
    return [type(error).__name__[:100], text[:MAX_TEXT], _place(error.__traceback__)[:MAX_TEXT]]


def _result(request: dict[str, Any], namespace: dict[str, Any]) -> Any:
    name = request["name"]
    if "source" in request:
        return _probe(request["source"], name, namespace)(*request["args"])
    if name not in namespace:
        raise NameError(f"name {name!r} is not defined")
    if "args" in request:
        return namespace[name](*request["args"], **request["kwargs"])
    return namespace[name]


def _probe(source: str, name: str, namespace: dict[str, Any]) -> Any:
    """Return the probe as a function of the notebook's global names, without becoming one of them."""
    filename = f"<probe {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    defined: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), namespace, defined)
    return defined[name]


def _place(trace: TracebackType | None) -> str:
    for frame in reversed(traceback.extract_tb(trace)):
        in_cell = "ipykernel_" in frame.filename or frame.filename.startswith("<ipython-input")
        if in_cell and frame.line:
            return f"line {frame.lineno} of the cell, in {frame.name}:  {frame.line}"
    return ""
