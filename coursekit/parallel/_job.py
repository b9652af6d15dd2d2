"""The launching process's side of a job: starting the template, relaying what ranks print, waiting for how
they end.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._failures import RankFailure, died, format_stack

GRACE_SECONDS = 0.3  # after a failure, for the other ranks to say what they saw
ANSWER_SECONDS = 1.0  # after a timeout, for the ranks to say where they stand
_MAX_LINE_BYTES = 1 << 20
_GLOO_CHATTER = re.compile(rb"\[Gloo\] Rank \d+ is connected to \d+ peer ranks")


class TemplateLostError(OSError):
    """The template process is gone."""


class Template:
    """The running template process of this process; see `_template`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        code = (
            "import sys, json, socket; sys.path[:] = json.loads(sys.argv[1]); "
            "from coursekit.parallel._template import serve; serve(socket.socket(fileno=int(sys.argv[2])))"
        )
        arguments = [sys.executable, "-c", code, json.dumps(sys.path), str(theirs.fileno())]
        with theirs:
            # A session of its own: an interrupt or a kill of the notebook's process group must not reach
            # it, for it cleans up.
            self.process = subprocess.Popen(
                arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.control, self.owner = ours, os.getpid()

    def start(self, world_size: int, descriptors: list[int]) -> None:
        """Have `world_size` ranks forked, which get copies of `descriptors`."""
        try:
            socket.send_fds(self.control, [world_size.to_bytes(4, "big")], descriptors)
        except OSError as error:
            raise TemplateLostError("the template process is gone") from error

    @property
    def alive(self) -> bool:
        """Whether it runs and is this process's, not inherited by a fork."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End the template, and with it every rank."""
        self.control.close()
        if self.owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


_template: Template | None = None
_lock = threading.Lock()


def template() -> Template:
    """Return this process's template, started if need be. Its import of torch goes on in the background."""
    global _template
    with _lock:
        if _template is None or not _template.alive:
            if _template is None:
                atexit.register(_close_template)
            else:
                _template.close()
            _template = Template()
        return _template


def _close_template() -> None:
    if _template is not None:
        _template.close()


class _Lines:
    """Relays the bytes that a rank prints, a whole line at a time, with the rank before it."""

    def __init__(self, rank: int, show: Callable[[str], None] | None) -> None:
        self.prefix, self.show, self.rest = f"[rank {rank}] ", show, b""

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self.rest) > _MAX_LINE_BYTES:
            self.end()

    def end(self) -> None:
        rest, self.rest = self.rest, b""
        if rest:
            self._emit(rest)

    def _emit(self, line: bytes) -> None:
        # A progress bar rewrites its line after a carriage return; what counts is what a terminal would
        # show last.
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
        if self.show is not None and not _GLOO_CHATTER.search(line):
            self.show(self.prefix + line.decode(errors="replace"))


@dataclass
class _Rank:
    rank: int
    output: _Lines
    result: bytearray = field(default_factory=bytearray)
    stack: bytearray = field(default_factory=bytearray)
    exit_code: int | None = None
    ended: float = 0.0
    stopped: bool = False  # killed by us


class Job:
    """One launch: its ranks, their pipes, and the socket whose end is their end.

    Use as a context manager; on leaving it no process of the job is left.
    """

    def __init__(self, world_size: int, payload: int, show: Callable[[str], None] | None) -> None:
        self.ranks = [_Rank(rank, _Lines(rank, show)) for rank in range(world_size)]
        self.pids: list[int] = []
        self.selector = selectors.DefaultSelector()
        self.messages = b""
        self.open_streams = 0
        self._start(world_size, payload)

    def _start(self, world_size: int, payload: int) -> None:
        self.channel, theirs = socket.socketpair()
        write_ends: list[int] = []
        try:
            for rank in self.ranks:
                for feed in (rank.output.feed, rank.result.extend, rank.stack.extend):
                    read_end, write_end = os.pipe()
                    write_ends.append(write_end)
                    self._watch(read_end, feed)
            template().start(world_size, [theirs.fileno(), payload, *write_ends])
            self.selector.register(self.channel, selectors.EVENT_READ, self._hear)
        except BaseException:
            self.__exit__()
            raise
        finally:
            theirs.close()
            for descriptor in write_ends:
                os.close(descriptor)

    def _watch(self, descriptor: int, feed: Callable[[bytes], object]) -> None:
        os.set_blocking(descriptor, False)
        self.selector.register(descriptor, selectors.EVENT_READ, feed)
        self.open_streams += 1

    def wait(self, timeout_seconds: float | None) -> bool:
        """Relay output until every rank has ended; return False if the time was up.

        When a rank fails, the others have `GRACE_SECONDS` to fail too.
        """
        limit = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.running:
            if self.failed and (limit is None or limit > time.monotonic() + GRACE_SECONDS):
                limit = time.monotonic() + GRACE_SECONDS
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return self.failed
            self._pump(left)
        return True

    def ask_where(self) -> None:
        """Have each running rank write its stack, and read it."""
        with contextlib.suppress(OSError):
            self.channel.send(b"?")
        limit = time.monotonic() + ANSWER_SECONDS
        while any(not _complete(rank.stack) for rank in self.running) and time.monotonic() < limit:
            self._pump(limit - time.monotonic())

    def stop(self) -> None:
        """Kill what runs, and read what is left in the pipes."""
        for rank in self.running:
            rank.stopped = True
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        limit = time.monotonic() + 5
        while self.open_streams and time.monotonic() < limit:
            self._pump(limit - time.monotonic())
        for rank in self.ranks:
            rank.output.end()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process: the template kills every rank when the channel closes, and closes its end when
        all are reaped.
        """
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
            self.channel.settimeout(5)
            while self.channel.recv(65536):
                pass
        self.channel.close()
        for key in list(self.selector.get_map().values()):
            if key.fileobj is not self.channel:
                os.close(key.fd)
        self.selector.close()

    @property
    def running(self) -> list[_Rank]:
        """The ranks that have not ended."""
        return [rank for rank in self.ranks if rank.exit_code is None]

    @property
    def failed(self) -> bool:
        """Whether a rank has failed; a rank whose failure is on its way counts."""
        return any(rank.exit_code or rank.result.startswith(b"no") for rank in self.ranks)

    def _pump(self, timeout: float | None) -> None:
        for key, _ in self.selector.select(timeout):
            if key.fileobj is self.channel:
                self._hear()
                continue
            try:
                data = os.read(key.fd, 1 << 20)
            except BlockingIOError:
                continue
            if data:
                key.data(data)
            else:
                self.selector.unregister(key.fd)
                os.close(key.fd)
                self.open_streams -= 1

    def _hear(self) -> None:
        data = self.channel.recv(65536)
        if not data:
            self.selector.unregister(self.channel)
            for rank in self.running:  # the template itself was killed; its ranks die with it
                rank.exit_code, rank.ended = 255, time.monotonic()
        *lines, self.messages = (self.messages + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "pids" in message:
            self.pids = message["pids"]
        else:
            rank = self.ranks[message["rank"]]
            rank.exit_code, rank.ended = message["exit_code"], message["time"]


def _complete(stack: bytearray) -> bool:
    """Whether a dump has come whole: the main thread, last, ends with the template's entry."""
    return b"in serve\n" in stack and stack.endswith(b"\n")


def failure_of(rank: _Rank, load: Callable[[bytes], Any]) -> RankFailure | None:
    """Return how a rank failed, or None if it gave a result."""
    if rank.result.startswith(b"ok") and rank.exit_code == 0:
        return None
    if rank.result.startswith(b"no") and rank.exit_code == 1:
        told = load(bytes(rank.result[2:]))
        reason = f"{told['type']}: {told['message']}" if told["message"] else told["type"]
        return RankFailure(rank.rank, reason, told["traceback"], told["time"])
    stack = bytes(rank.stack).decode(errors="replace")
    if rank.stopped:
        return RankFailure(rank.rank, "stopped by launch", format_stack(stack), rank.ended, stopped=True)
    return died(rank.rank, rank.exit_code or 0, stack=stack, time=rank.ended)
