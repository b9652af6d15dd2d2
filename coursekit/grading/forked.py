"""The owner's side of forked kernels: starting the template, and one kernel of it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from coursekit.errors import CoursekitError
from coursekit.grading.sandbox.enter import Request

# The template's coursekit is ours, the one that its box can read, though another may be installed.
_CODE = (
    "import sys; ours = sys.argv.pop(1); ours in sys.path or sys.path.insert(0, ours); "
    "from coursekit.grading.template_process import main; main()"
)
_OURS = str(Path(__file__).parents[2])
# A template's first environment stays readable in every kernel (/proc/self/environ): none of the grader's.
_INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class KernelRefusedError(CoursekitError):
    """The template could not bring up a kernel: a layer was refused, or it has died."""


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment kernels may know: paths of programs, language, number of threads.

    >>> plain_environment({"LANG": "C.UTF-8", "AWS_SECRET_ACCESS_KEY": "..."})
    {'LANG': 'C.UTF-8'}
    """
    return {name: environment[name] for name in (*_INHERITED, *_THREADS) if name in environment}


class Template:
    """A running template process, owned by this process.

    Args:
        modules: what it imports before the first fork.
        environment: what it is started with; libraries read the number of threads from there when imported.
    """

    def __init__(self, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.control, theirs = socket.socketpair()
        self.complaints = tempfile.TemporaryFile()  # not on the screen, where progress is shown
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, _OURS, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.complaints,
                cwd="/",
                env=dict(environment),
                start_new_session=True,  # an interrupt of the owner's group must not reach it
            )

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        if self.process.poll() is not None:
            return False
        try:  # a process that ends closes its sockets before it can be waited for
            return self.control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def fork(self, request: Request) -> ForkedKernel:
        """Return a kernel that is being started. Raises: KernelRefusedError if the template has died."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.control, [b"k"], [theirs.fileno()])
            ours.sendall(request.to_bytes())
        except OSError as error:
            ours.close()
            raise KernelRefusedError(
                f"the process that kernels are forked from ended: {self.reason}"
            ) from error
        return ForkedKernel(ours)

    @property
    def reason(self) -> str:
        """The last line of what it wrote to stderr: what it died of."""
        text = os.pread(self.complaints.fileno(), 2**20, 0).decode(errors="replace").strip()
        return text.rpartition("\n")[2][:500] or "no reason given"

    def close(self) -> None:
        """End it; kernels that it forked go on until their own end."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.complaints.close()


class ForkedKernel:
    """One kernel, seen through its keeper's socket: what of `subprocess.Popen` a provisioner uses.

    pid: the kernel's process id, as it sees it itself; None until it is ready.
    stopped: what it used too much of, if it was ended for that: "memory", "tasks", "processes", "sessions",
        "disk", "sockets" or "locks" (by its keeper), or "processor_time" (by the system).
    """

    stdin = stdout = stderr = None

    def __init__(self, keeper: socket.socket) -> None:
        self.pid: int | None = None
        self.returncode: int | None = None
        self.stopped: str | None = None
        self.error: str | None = None
        self._keeper, self._lines = keeper, b""

    def wait_until_ready(self, seconds: float) -> None:
        """Return when the kernel runs in its box. Raises: KernelRefusedError if it does not come so far."""
        limit = time.monotonic() + seconds
        while self.pid is None:
            self._read(max(0.0, limit - time.monotonic()))
            if self.error or self.returncode is not None:
                raise KernelRefusedError(f"no kernel could be forked: {self.error or 'it ended at once'}")
            if time.monotonic() > limit:
                raise KernelRefusedError(f"no kernel could be forked within {seconds:g} seconds")

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal, or None while it runs."""
        self._read(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status once it has ended and left nothing behind. Raises: TimeoutExpired."""
        limit = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self._read(None if limit is None else max(0.0, limit - time.monotonic()))
            if self.returncode is None and limit is not None and time.monotonic() > limit:
                raise subprocess.TimeoutExpired("kernel", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Have the kernel's process group signalled; SIGKILL ends the whole box."""
        if self.returncode is None:
            with contextlib.suppress(OSError):
                self._keeper.sendall(json.dumps({"signal": int(number)}).encode() + b"\n")

    def kill(self) -> None:
        """End the kernel and all that it started."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is news."""
        return self._keeper.fileno()

    def close(self) -> None:
        """Let go of the kernel: its keeper ends it."""
        self._keeper.close()

    def _read(self, seconds: float | None) -> None:
        while self.returncode is None and select.select([self._keeper], [], [], seconds)[0]:
            seconds = 0.0
            try:
                received = self._keeper.recv(4096)
            except ConnectionError:
                received = b""
            *lines, self._lines = (self._lines + received).split(b"\n")
            for line in lines:
                self._note(json.loads(line))
            if not received and self.returncode is None:
                self.returncode = -signal.SIGKILL  # its keeper is gone, and took all with it

    def _note(self, message: dict[str, object]) -> None:
        self.pid = message.get("ready", self.pid)
        self.error = message.get("error", self.error)
        self.stopped = message.get("stopped", self.stopped)
        self.returncode = message.get("exit", self.returncode)
        if self.returncode == -signal.SIGXCPU:
            self.stopped = self.stopped or "processor_time"


_templates: dict[tuple[object, ...], Template] = {}
_lock = threading.Lock()


def current_template(modules: tuple[str, ...], environment: Mapping[str, str]) -> Template:
    """Return this process's template with these modules and numbers of threads, started if need be."""
    plain = plain_environment(environment)
    # By process: one that a fork inherited cannot be waited for, and its owner may close it.
    key = (os.getpid(), modules, *sorted(plain.items()))
    with _lock:
        template = _templates.get(key)
        if template is not None and not template.alive:
            template.close()
            template = None
        if template is None:
            template = _templates[key] = Template(modules, plain)
        return template


@atexit.register
def close_templates() -> None:
    """End the templates that this process started."""
    for key in [key for key in _templates if key[0] == os.getpid()]:
        _templates.pop(key).close()
