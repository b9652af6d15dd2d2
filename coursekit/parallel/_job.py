"""The launching process's side of a job: its pipes, what ranks print, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._failures import LOST_PEER, RankFailure, died, format_stack
from ._template import Template

GRACE_SECONDS = 0.3  # after a failure, for the other ranks to say what they saw
CAUSE_SECONDS = 10.0  # after a rank that lost another one, for that one's end to be told on a busy machine
START_SECONDS = 120.0  # for a fresh template to import torch
ANSWER_SECONDS = 2.0  # for the ranks to say where they stand
KILL_SECONDS = 5.0  # for killed processes to be gone
_MAX_LINE_BYTES = 1 << 20
# What gloo and torch.profiler print from C++ about themselves.
_CHATTER = re.compile(rb"^\[Gloo\] Rank \d+ is connected to \d+ peer|^USDT:.*ActivityProfiler")


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
        # A progress bar rewrites its line after a carriage return; what a terminal would show last counts.
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
        if self.show is not None and not _CHATTER.search(line):
            self.show(self.prefix + line.decode(errors="replace"))


@dataclass(eq=False)
class Rank:
    """What is known of one rank."""

    rank: int
    output: _Lines
    result: bytearray = field(default_factory=bytearray)
    stack: bytearray = field(default_factory=bytearray)
    open_streams: int = 0
    exit_code: int | None = None
    ended: float = 0.0  # on the monotonic clock, seconds
    stopped: bool = False  # killed by us

    @property
    def failed(self) -> bool:
        """Whether it raised, was killed, or ended without a result."""
        silent = self.exit_code == 0 and not self.open_streams and not self.result
        return bool(self.exit_code) or self.result.startswith(b"no") or silent

    @property
    def lost_peer(self) -> bool:
        """Whether it says, as far as it has said it, that another one is gone."""
        return self.result.startswith(b"no") and bool(LOST_PEER.search(self.result.decode(errors="replace")))

    @property
    def told_where(self) -> bool:
        """Whether a dump of its stack has come whole: the main thread is last, its first call at the end."""
        return self.stack.endswith((b"in <module>\n", b"  ...\n"))

    def failure(self, load: Callable[[bytes], Any]) -> RankFailure | None:
        """Return how it failed, or None if it gave a result."""
        if self.result.startswith(b"ok") and self.exit_code == 0:
            return None
        if self.result.startswith(b"no") and self.exit_code == 1:
            told = load(bytes(self.result[2:]))
            reason = f"{told['type']}: {told['message']}" if told["message"] else told["type"]
            return RankFailure(self.rank, reason, told["traceback"], told["time"])
        stack = self.stack.decode(errors="replace")
        if self.stopped:
            return RankFailure(self.rank, "stopped by launch", format_stack(stack), self.ended, stopped=True)
        return died(self.rank, self.exit_code or 0, stack=stack, time=self.ended)


class Job:
    """One launch: its ranks, their pipes, and the socket whose end is their end.

    Use as a context manager; on leaving it no process of the job is left.
    """

    def __init__(
        self, template: Template, world_size: int, payload: int, *, show: Callable[[str], None] | None
    ) -> None:
        self.ranks = [Rank(rank, _Lines(rank, show)) for rank in range(world_size)]
        self.pids: list[int] = []
        self.selector = selectors.DefaultSelector()
        self.messages = b""
        self.channel, theirs = socket.socketpair()
        write_ends: list[int] = []
        try:
            for rank in self.ranks:
                for feed in (rank.output.feed, rank.result.extend, rank.stack.extend):
                    write_ends.append(self._pipe(rank, feed))
            template.fork_ranks(world_size, [theirs.fileno(), payload, *write_ends])
            self.selector.register(self.channel, selectors.EVENT_READ)
        except BaseException:
            self.__exit__()
            raise
        finally:
            theirs.close()
            for descriptor in write_ends:
                os.close(descriptor)

    def _pipe(self, rank: Rank, feed: Callable[[bytes], object]) -> int:
        """Return the writing end of a pipe whose reading end goes to `feed`."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        self.selector.register(read_end, selectors.EVENT_READ, (rank, feed))
        rank.open_streams += 1
        return write_end

    @property
    def running(self) -> list[Rank]:
        """The ranks that have not ended."""
        return [rank for rank in self.ranks if rank.exit_code is None]

    def wait(self, timeout_seconds: float | None) -> bool:
        """Relay output until every rank has ended; return False if the time was up.

        The time runs from the moment that the ranks are forked, until one fails; then the others have a
        moment to fail too.
        """
        limit = None if timeout_seconds is None else time.monotonic() + START_SECONDS + timeout_seconds
        forked, grace = False, None
        while self.running:
            if not forked and self.pids:  # until then a fresh template was importing torch
                forked = True
                limit = None if timeout_seconds is None else time.monotonic() + timeout_seconds
            if (granted := self._grace_seconds()) != grace:
                grace, limit = granted, time.monotonic() + granted
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return grace is not None
            self._pump(left)
        return True

    def _grace_seconds(self) -> float | None:
        """Return how long the other ranks have to fail after the first that did; None while none has."""
        failed = [rank for rank in self.ranks if rank.failed]
        if not failed:
            return None
        explained = not all(rank.lost_peer for rank in failed) or any(r.exit_code == 0 for r in self.ranks)
        return GRACE_SECONDS if explained else CAUSE_SECONDS

    def ask_where(self) -> None:
        """Have each running rank write its stack, and read it."""
        with contextlib.suppress(OSError):
            self.channel.send(b"?")
        limit = time.monotonic() + ANSWER_SECONDS
        while not all(rank.told_where for rank in self.running) and (left := limit - time.monotonic()) > 0:
            self._pump(left)

    def stop(self) -> None:
        """Kill what runs, and read what is left in the pipes."""
        for rank in self.running:
            rank.stopped = True
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        limit = time.monotonic() + KILL_SECONDS
        while self.running and (left := limit - time.monotonic()) > 0:
            self._pump(left)
        # What a rank wrote is in the pipe when it has ended. Not until the pipe's end: a process that it left
        # to itself (a daemon) may hold the other end for ever.
        while self._pump(0):
            pass
        for rank in self.ranks:
            rank.output.end()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process: when the channel closes, the template kills the ranks, then closes its end."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
            self.channel.settimeout(KILL_SECONDS)
            while self.channel.recv(65536):
                pass
        self.channel.close()
        for key in list(self.selector.get_map().values()):
            if key.fileobj is not self.channel:
                os.close(key.fd)
        self.selector.close()

    def _pump(self, timeout: float | None) -> bool:
        """Handle what arrives within `timeout` seconds; return whether anything did."""
        events = self.selector.select(timeout)
        for key, _ in events:
            if key.fileobj is self.channel:
                self._hear()
            else:
                self._read(key.fd, *key.data)
        return bool(events)

    def _read(self, descriptor: int, rank: Rank, feed: Callable[[bytes], object]) -> None:
        if data := os.read(descriptor, 1 << 20):
            feed(data)
        else:
            self.selector.unregister(descriptor)
            os.close(descriptor)
            rank.open_streams -= 1

    def _hear(self) -> None:
        """Take the template's messages: the process ids, and each rank's end."""
        data = self.channel.recv(65536)
        *lines, self.messages = (self.messages + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        if not data:
            self.selector.unregister(self.channel)
            self._bury()

    def _take(self, message: dict[str, Any]) -> None:
        if "pids" in message:
            self.pids = message["pids"]
        else:
            rank = self.ranks[message["rank"]]
            rank.exit_code, rank.ended = message["exit_code"], message["time"]

    def _bury(self) -> None:
        """After the end of the template itself, which somebody must have killed: kill its ranks."""
        for rank, pid in zip(self.ranks, self.pids, strict=False):
            if rank.exit_code is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
        for rank in self.running:
            rank.exit_code, rank.ended = -signal.SIGKILL, time.monotonic()
