"""The grader's hold on one trusted process: cells go in, questions to the student's side come out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coursekit.errors import CoursekitError
from coursekit.grading.scratch import scratch_folder
from coursekit.grading.trusted import frames
from coursekit.grading.trusted.template import imported_modules, template_for

StopReason = Literal["timeout", "died"]
Ending = Literal["ok", "timeout", "died"]
# Takes a request (codec bytes) to the student's kernel, within so many seconds.
AskStudent = Callable[[bytes, float], Awaitable["bytes | StopReason"]]
_INTERRUPT_SECONDS = 0.5
_SAID = {
    "timeout": ("CellTimeoutError", "stopped: it took too long"),
    "died": ("DeadKernelError", "the student's kernel died in this test"),
}


class TrustedSideError(CoursekitError):
    """The trusted process did not do its part: no fault of the answer's, so there is no score."""


class _StuckError(Exception):
    """A cell does not end, and no interrupt reaches it."""


@dataclass(frozen=True)
class Bounds:
    """Seconds until a new process must be ready, seconds a stopped cell may take to end, bytes of output."""

    start_seconds: float
    drain_seconds: float
    output_bytes: int


class TrustedSide:
    """One trusted process, for one submission."""

    def __init__(self, *, student_names: Iterable[str], bounds: Bounds) -> None:
        self.student_names, self.bounds = sorted(student_names), bounds
        self._folder = scratch_folder()
        self._pid: int | None = None
        self._busy = self._asked = False
        self._reading: asyncio.Task[tuple[bytes, bytes]] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self, sources: Iterable[str], files: Mapping[str, bytes]) -> None:
        """Fork the process from a template that has imported what `sources` (locked cells, tests) import.

        Args: files: what is laid into its folder, name -> bytes. It is not the student's folder, whose files
            a student's code may have changed.
        """
        for name, data in files.items():
            target = Path(self._folder.name, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        channel = template_for(imported_modules(sources)).fork(self._folder.name)
        channel.setblocking(False)
        self._reader, self._writer = await asyncio.open_unix_connection(sock=channel)

    async def run(self, name: str, source: str) -> list[dict[str, Any]]:
        """Return the outputs of a locked cell. Raises: TrustedSideError if it raises or does not end."""
        seconds = self.bounds.start_seconds
        try:
            outputs, state = await self._run(name, source, (), seconds, _nobody)
        except _StuckError as error:
            raise TrustedSideError(f"the locked cell {name} {error}") from None
        errors = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
        # Without it a test would miss names, or find others.
        if errors or state != "ok":
            said = errors[0] if errors else f"it did not end in {seconds:g} s"
            raise TrustedSideError(f"the locked cell {name} fails where the tests run: {said}")
        return outputs

    async def test(
        self, name: str, source: str, *, seconds: float, ask: AskStudent
    ) -> tuple[list[dict[str, Any]], Literal["ok", "error", "timeout", "died"]]:
        """Return the outputs of a test cell and what became of it.

        Args:
            name: its grade_id.
            source: its code.
            seconds: how long it may take, the student's answers included.
            ask: takes a request to the student's kernel.
        "died" is also one that works on the student's answer without end: no other can run in this process.
        Raises: TrustedSideError if the process is gone, or does not end by itself.
        """
        try:
            outputs, state = await self._run(name, source, self.student_names, seconds, ask)
        except _StuckError as error:
            if not self._asked:
                raise TrustedSideError(f"the cell {name} {error}") from None
            # It has the student's answer, and with that it does not come to an end: that is what it earns.
            ename, text = _SAID["timeout"]
            return [{"output_type": "error", "ename": ename, "evalue": text, "traceback": [text]}], "died"
        if state != "ok":
            ename, text = _SAID[state]
            # One error, and nothing that could be read as points.
            kept = [output for output in outputs if output["output_type"] == "stream"]
            kept.append({"output_type": "error", "ename": ename, "evalue": text, "traceback": [text]})
            return kept, state
        return outputs, "error" if any(o["output_type"] == "error" for o in outputs) else "ok"

    async def close(self) -> None:
        """End the process, whatever it is doing, and remove its folder."""
        if self._reading:
            self._reading.cancel()
        if self._writer:
            self._writer.close()  # an idle process ends by itself
            if self._busy and self._pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, signal.SIGKILL)
        self._folder.cleanup()

    async def _run(
        self, name: str, source: str, student_names: Iterable[str], seconds: float, ask: AskStudent
    ) -> tuple[list[dict[str, Any]], Ending]:
        await self._ready()
        job = {"name": name, "source": source, "student_names": list(student_names)}
        await self._send(frames.RUN, {**job, "output_bytes": self.bounds.output_bytes})
        loop = asyncio.get_running_loop()
        deadline, self._busy, self._asked, state = loop.time() + seconds, True, False, "ok"
        while True:
            left = deadline - loop.time()
            message = await self._next(max(0.0, left) if state == "ok" else _INTERRUPT_SECONDS)
            if message is None:
                state = state if state != "ok" else "timeout"
                self._interrupt(overdue=-left)
            elif message[0] == frames.DONE:
                self._busy = False
                return json.loads(message[1]), state
            else:
                state = await self._pass_on(message[1], left, state, ask)

    async def _pass_on(self, request: bytes, left: float, state: Ending, ask: AskStudent) -> Ending:
        """Have the student's side answer, and send on what it says; return what became of the cell."""
        self._asked = True
        answer = await ask(request, max(0.0, left)) if state == "ok" else state
        if isinstance(answer, bytes):
            await self._send(frames.ANSWER, answer)
            return "ok"
        name, text = _SAID[answer]
        await self._send(frames.NONE, {"name": name, "text": text})
        return answer

    async def _ready(self) -> None:
        if self._pid is None:
            message = await self._next(self.bounds.start_seconds)
            if message is None:
                raise TrustedSideError(f"no trusted process in {self.bounds.start_seconds:g} s")
            self._pid = int(message[1])

    def _interrupt(self, *, overdue: float) -> None:
        if overdue > self.bounds.drain_seconds:
            raise _StuckError("ran too long where the tests run, and cannot be stopped")
        with suppress(ProcessLookupError):
            os.kill(self._pid or 0, signal.SIGINT)

    async def _send(self, kind: bytes, body: bytes | dict[str, Any]) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self._writer.write(frames.frame(kind, data))
            await self._writer.drain()
        except OSError as error:
            raise TrustedSideError(f"the trusted process is gone: {error}") from error

    async def _next(self, seconds: float) -> tuple[bytes, bytes] | None:
        """Return the next message, or None if there is none in time."""
        # The task outlives a timeout: one that is cancelled could lose half a message.
        self._reading = self._reading or asyncio.ensure_future(frames.receive_async(self._reader))
        done, _ = await asyncio.wait({self._reading}, timeout=seconds)
        if not done:
            return None
        reading, self._reading = self._reading, None
        try:
            return reading.result()
        except (EOFError, OSError) as error:
            raise TrustedSideError("the trusted process is gone") from error


async def _nobody(request: bytes, seconds: float) -> bytes | StopReason:
    raise TrustedSideError("a locked cell asked the student's side")
