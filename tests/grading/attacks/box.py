"""The outer box: what keeps the machine of whoever tests alive, whatever a grading lets through."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from contextlib import suppress
from unittest import mock

import psutil

from coursekit.grading.sandbox import seccomp

PR_SET_CHILD_SUBREAPER = 36


def enter(*, address_space: int = 4 * 2**30) -> None:
    """Bound this process and its children, and become the parent of whatever they leave behind."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**30, 3 * 2**30))
    adopt()


def refuse_namespaces() -> None:
    """Be like a container: this process and its children can make no namespaces, nor mount anything.

    Root may still become another user, as it may there: by that user the system counts a kernel's tasks.
    """
    of_users = {name: (None, None) for name in seccomp.DENIED if name.startswith(("setu", "setr", "setgr"))}
    with mock.patch.dict(seccomp.DENIED, of_users):
        seccomp.restrict_system_calls(internet=True, own_files=True)


def adopt() -> None:
    """Become the parent of processes whose own parent ends; leave no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def left_over(*, seconds: float) -> list[str]:
    """Return the command lines of descendants that still run after some seconds, and kill them all."""
    end = time.monotonic() + seconds
    while (alive := _alive()) and time.monotonic() < end:
        time.sleep(0.05)
    said = [_command(process) for process in alive]
    while alive := _alive():  # again and again: what forks while it is killed is killed in the end
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
    return said


def _alive() -> list[psutil.Process]:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
    return found


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:200]
    return "?"


def kill_group(pid: int) -> None:
    """Kill a process, its group and its descendants."""
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
