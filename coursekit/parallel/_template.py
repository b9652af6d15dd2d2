"""Starting the template process, once for a launching process, and keeping it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

_CODE = (
    "import sys, json, socket; sys.path[:] = json.loads(sys.argv[1]); "
    "from coursekit.parallel._serve import serve; serve(socket.socket(fileno=int(sys.argv[2])))"
)


class Template:
    """The running template process of this process; see `_serve` for what it does.

    Args:
        fork: make it by a fork of this process, where no new program can be started. Safe only while OpenMP
            has not worked here.
    """

    def __init__(self, *, fork: bool = False) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = _Forked(self.control, theirs) if fork else _execute(theirs)

    def fork_ranks(self, world_size: int, descriptors: list[int]) -> None:
        """Have `world_size` ranks forked, which get copies of `descriptors`."""
        with self.lock:
            socket.send_fds(self.control, [world_size.to_bytes(4, "big")], descriptors)

    @property
    def alive(self) -> bool:
        """Whether it runs and is this process's own, not one inherited by a fork."""
        if self.owner != os.getpid() or self.process.poll() is not None:
            return False
        try:  # a process that was just killed closes its sockets before it can be waited for
            return self.control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """End the template, and with it every rank."""
        self.control.close()
        if self.owner != os.getpid():
            self.process.returncode = 0  # not ours to wait for
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


def _execute(theirs: socket.socket) -> subprocess.Popen[bytes]:
    # A session of its own: an interrupt or a kill of the notebook's process group must not reach the process
    # that cleans up after it.
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, json.dumps(sys.path), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


class _Forked:
    """A template made by a fork, with as much of Popen's interface as is used."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                ours.close()
                from ._serve import serve

                serve(theirs)
            finally:
                os._exit(0)

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float) -> None:
        limit = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)


_current: Template | None = None
_lock = threading.Lock()


def current_template(*, fork: bool = False) -> Template:
    """Return this process's template, started if need be; its import of torch goes on in the background."""
    global _current
    with _lock:
        if _current is None or not _current.alive:
            if _current is None:
                atexit.register(_close)
            else:
                _current.close()
            _current = Template(fork=fork)
        return _current


def _close() -> None:
    if _current is not None:
        _current.close()
