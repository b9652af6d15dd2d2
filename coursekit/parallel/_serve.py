"""The template process: it imports torch once, and every rank is a fork of it.

A fork of the notebook's own process hangs as soon as OpenMP has worked there, and a new interpreter for
every rank spends seconds on importing torch. The template is a fresh interpreter that imports torch,
computes nothing, and so can be forked safely and fast.

It also is what keeps the machine clean. Each job has a socket whose other end only the launching process
holds: when that end closes, because the job is over, was interrupted, or its process died in any way, the
template kills the process groups of the job's ranks.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import warnings
from dataclasses import dataclass, field

# What the ranks of a training job need anyway. torch._dynamo is imported by the first optimizer or DDP that
# is made.
PRELOAD = ("torch", "torch.distributed", "torch.nn.parallel", "torch._dynamo", "cloudpickle", "numpy")
MAX_WORLD_SIZE = 64  # three descriptors a rank travel in one message, which holds 253


def serve(control: socket.socket) -> None:
    """Fork ranks on request over `control` until its other end is gone, then kill every rank and return."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the template itself never computes
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            __import__(name)
    from . import _rank  # noqa: F401  (so that a forked rank finds it imported)

    gc.collect()
    gc.freeze()  # a rank's garbage collector then leaves the shared pages alone, which would be copied
    _Server(control).run()


@dataclass(eq=False)
class _Job:
    channel: socket.socket
    ranks: dict[int, int] = field(default_factory=dict)  # process id -> rank, of those not yet reaped
    abandoned: bool = False  # the launching process has closed its end

    def tell(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self.channel.sendall(json.dumps(message).encode() + b"\n")

    def signal(self, number: signal.Signals) -> None:
        for pid in self.ranks:
            if number == signal.SIGKILL:
                _kill_group(pid)
            else:
                os.kill(pid, number)


class _Server:
    """The loop of the template process: requests, ended ranks, abandoned jobs."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.owner = os.getppid()
        self.jobs: list[_Job] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.wake_read, self.wake_write = os.pipe()
        for descriptor in (self.wake_read, self.wake_write):
            os.set_blocking(descriptor, False)
        self.selector.register(self.wake_read, selectors.EVENT_READ)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # The question where a rank stands waits until the rank can answer: unanswered it would kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the owner is gone."""
        # The socket alone does not tell: a forked child of the owner may hold a copy of its end.
        while self._serve_once() and os.getppid() == self.owner:
            pass
        for job in self.jobs:
            job.signal(signal.SIGKILL)

    def _serve_once(self) -> bool:
        """Handle what is ready; return False when the owner has closed the control socket."""
        for key, _ in self.selector.select(timeout=0.5):
            if key.fileobj is self.control:
                if not self._accept_job():
                    return False
            elif key.fileobj == self.wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_read, 4096)
            else:
                self._obey(key.data)
        self._reap()
        return True

    def _accept_job(self) -> bool:
        try:
            message, descriptors, _, _ = socket.recv_fds(self.control, 4, 3 * MAX_WORLD_SIZE + 2)
        except OSError:
            return False
        if len(message) < 4:
            return False
        channel, payload, *streams = descriptors
        job = _Job(socket.socket(fileno=channel))
        self.jobs.append(job)
        self.selector.register(job.channel, selectors.EVENT_READ, job)
        world_size = int.from_bytes(message, "big")
        for rank in range(world_size):
            job.ranks[self._fork(rank, payload, streams)] = rank
        job.tell(pids=[pid for pid, _ in sorted(job.ranks.items(), key=lambda item: item[1])])
        for descriptor in (payload, *streams):
            os.close(descriptor)
        return True

    def _fork(self, rank: int, payload: int, streams: list[int]) -> int:
        pid = os.fork()
        if pid:
            with contextlib.suppress(OSError):  # parent and child both set it, so that neither can be early
                os.setpgid(pid, pid)
            return pid
        status = 1
        try:
            mine = streams[3 * rank : 3 * rank + 3]
            self._leave(others=[descriptor for descriptor in streams if descriptor not in mine])
            from ._rank import run_rank

            status = run_rank(rank, payload, *mine)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            # No exit handlers: they are the template's, and a rank that hangs in one is a rank that hangs.
            os._exit(status)

    def _leave(self, others: list[int]) -> None:
        """In a forked rank: give up everything that belongs to the template."""
        os.setpgid(0, 0)
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.selector.close()
        for descriptor in (self.wake_read, self.wake_write):
            os.close(descriptor)
        for job in self.jobs:
            job.channel.close()
        self.control.close()
        for descriptor in others:  # a stream ends when its rank does, so no other rank may hold it
            os.close(descriptor)

    def _obey(self, job: _Job) -> None:
        with contextlib.suppress(OSError):
            if job.channel.recv(64):  # a request to say where each rank stands
                job.signal(signal.SIGUSR1)
                return
        self.selector.unregister(job.channel)
        job.abandoned = True
        job.signal(signal.SIGKILL)

    def _reap(self) -> None:
        for job in list(self.jobs):
            for pid, rank in list(job.ranks.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                # Workers that the rank left behind; while one of them lives, the group's id is not reused.
                _kill_group(pid)
                del job.ranks[pid]
                job.tell(rank=rank, exit_code=os.waitstatus_to_exitcode(status), time=time.monotonic())
            if job.abandoned and not job.ranks:
                job.channel.close()  # the launching process waits for this
                self.jobs.remove(job)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the template dies; elsewhere the launching process does it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
