"""The keeper: the process above a kernel that passes signals on, watches sums, and leaves nothing running.

It runs no code of a student. In a PID namespace it is process 1, whose end is the end of all others there.
Elsewhere it adopts orphans, so that a process which left its parent is still found.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import NoReturn

from coursekit.grading.sandbox.memory import MemoryWatch
from coursekit.grading.sandbox.policy import Policy
from coursekit.grading.sandbox.share import share_with_the_crowd
from coursekit.grading.sandbox.usage import usage_of

WATCH_SECONDS = 0.1
# The system stops all locking for as long as a piece of its list is read.
LOCKS_SECONDS = 1.0
SHARE_SECONDS = 0.5
# What an empty file counts as: a disk has room for so many names, too.
_ENTRY_BYTES = 8192


class Keeper:
    """Keeps one kernel until it ends, its owner goes away, or it uses more than the policy allows.

    Args:
        kernel: the kernel's process id.
        owner: a stream socket. In come lines like `{"signal": 2}`, out go `{"stopped": "memory"}` and, last,
            `{"exit": 0}`, negative for a signal. Its end means that the owner is gone.
        policy: the bounds.
        box: where files are counted, or None where the file system itself bounds them.
        sockets: the directory that the kernel may make sockets in, on the machine's own disk.
    """

    def __init__(
        self, kernel: int, owner: socket.socket, policy: Policy, *, box: str | None, sockets: str
    ) -> None:
        self.kernel, self.owner, self.policy, self.box, self.sockets = kernel, owner, policy, box, sockets
        self.alone = "processes" in policy.layers
        self.status: int | None = None
        self._lines = b""
        self._memory = MemoryWatch(policy.memory_bytes)
        self._look_at_locks = self._look_at_shares = 0.0

    def serve(self) -> NoReturn:
        """Keep the kernel; ends this process."""
        try:
            self._watch()
        finally:
            try:
                self._kill_all()
                self._tell({"exit": -signal.SIGKILL if self.status is None else self.status})
            finally:
                os._exit(0)  # whatever happened: beyond here lies the template's own loop

    def _watch(self) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with contextlib.suppress(OSError):  # root's alone: to be heard above a crowd of processes
            os.nice(-10)
        watch = "limits" in self.policy.layers
        while self._reap() and self.status is None:
            ready, _, _ = select.select([self.owner, reader], [], [], WATCH_SECONDS if watch else None)
            if reader in ready:
                os.read(reader, 4096)
            if self.owner in ready and not self._obey():
                return
            if watch and (excess := self._excess()):
                self._tell({"stopped": excess})
                return

    def _reap(self) -> bool:
        """Bury what has ended; return whether any process is left."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not ended:
                return True
            if ended == self.kernel:
                self.status = os.waitstatus_to_exitcode(status)

    def _obey(self) -> bool:
        """Do what the owner wrote; return False if it is gone, or wants an end."""
        try:
            received = self.owner.recv(4096)
        except ConnectionError:
            return False
        *lines, self._lines = (self._lines + received).split(b"\n")
        for line in lines:
            number = json.loads(line)["signal"]
            if number == signal.SIGKILL:
                return False
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.kernel, number)
        return bool(received)

    def _excess(self) -> str | None:
        """Return what there is too much of."""
        pids = self._processes()
        found = {pid: usage for pid in pids if (usage := usage_of(pid)) is not None}
        numbers = found.values()
        if sum(usage.tasks for usage in numbers) > self.policy.tasks:
            return "tasks"
        if len(numbers) > self.policy.processes:
            return "processes"
        sessions = {pid: usage.session for pid, usage in found.items()}
        if len(set(sessions.values())) > self.policy.sessions:
            return "sessions"
        if time.monotonic() >= self._look_at_shares:
            self._look_at_shares = time.monotonic() + SHARE_SECONDS
            share_with_the_crowd(self.kernel, sessions)
        if self._memory.is_exceeded(found):
            return "memory"
        if self.box is not None and _size(self.box) > self.policy.box_bytes:
            return "disk"
        if time.monotonic() >= self._look_at_locks:
            self._look_at_locks = time.monotonic() + LOCKS_SECONDS
            if _has_more_locks(pids, self.policy.locks):
                return "locks"
        return "sockets" if self._count_sockets() > self.policy.sockets else None

    def _count_sockets(self) -> int:
        """Return how many sockets there are, open or as names; those of others are not told apart."""
        named = 0
        with contextlib.suppress(OSError):
            named = len(os.listdir(self.sockets))
        if "network" not in self.policy.layers:
            return named
        with contextlib.suppress(OSError, IndexError, ValueError), open("/proc/net/sockstat") as file:
            return max(named, int(file.readline().split()[2]))
        return named

    def _processes(self) -> list[int]:
        if self.alone:
            return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        return descendants(os.getpid())

    def _kill_all(self) -> None:
        signal.set_wakeup_fd(-1)
        if self.alone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # from process 1: everything in the namespace but itself
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.kernel, signal.SIGKILL)
        limit = time.monotonic() + 10
        while self._reap() and time.monotonic() < limit:
            for pid in [] if self.alone else descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def _tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            self.owner.sendall(json.dumps(message).encode() + b"\n")


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below `pid`, as far as the system tells."""
    if sys.platform != "linux":
        import psutil

        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children(recursive=True)]
        return []
    # Not by recursion: each process may have forked the next, deeper than Python goes.
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    found += map(int, file.read().split())
    return found[1:]


def _has_more_locks(pids: Iterable[int], most: int) -> bool:
    """Return whether these processes have locked, or wait for, more parts of files; Linux only.

    No more is read than is needed: the list may grow faster than it can be read.
    """
    owners = {b"%d" % pid for pid in pids}
    try:
        with open("/proc/locks", "rb") as file:  # the last: process, file, first byte, last byte
            theirs = (line for line in file if line.split()[-4] in owners)
            return next(itertools.islice(theirs, most, None), None) is not None
    except (OSError, IndexError):
        return False


def _size(folder: str) -> int:
    total = 0
    for path, folders, names in os.walk(folder):
        total += len(folders) * _ENTRY_BYTES
        for name in names:
            with contextlib.suppress(OSError):
                total += max(_ENTRY_BYTES, os.lstat(os.path.join(path, name)).st_blocks * 512)
    return total
