"""The outer box: what keeps the machine of whoever tests alive, whatever a grading lets through."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from unittest import mock

import psutil

from coursekit.grading.sandbox import libc, seccomp
from coursekit.grading.sandbox.filesystem import SOCKETS, enter_root
from coursekit.grading.sandbox.namespaces import enter_namespaces
from coursekit.grading.sandbox.policy import Policy, readable_paths

PR_SET_CHILD_SUBREAPER = 36
ORDINARY_USER = 65534
# Where an ordinary user's program sees the one folder that it shares with root.
SHARED = Path(SOCKETS)


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
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)  # asked of an ordinary user
        seccomp.restrict_system_calls(internet=True, own_files=True)


def run_as_ordinary_user(module: str, folder: Path) -> NoReturn:
    """Run a module of this package as a user who may do nothing special and owns `folder`; end as it does.

    Root's interpreter may be out of others' reach: a file system that root makes shows it to them, with the
    folder at `SHARED`, and arguments that name something in it are changed to that.
    """
    arguments = [argument.replace(str(folder), str(SHARED)) for argument in sys.argv[1:]]
    policy = Policy(frozenset({"files", "processes"}))
    private = folder.with_name(f"{folder.name}-root")
    for path in (private / "root", private / "empty"):
        path.mkdir(parents=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ORDINARY_USER, ORDINARY_USER, follow_symlinks=False)
    enter_namespaces(policy)
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    account = (ORDINARY_USER, ORDINARY_USER)
    code = str(Path(__file__).parents[2])
    places = {"folder": private / "root", "files": private / "empty", "sockets": folder}
    readable = (*readable_paths(), code)
    enter_root(**{k: str(v) for k, v in places.items()}, policy=policy, readable=readable, account=account)
    os.setgroups([])
    os.setgid(ORDINARY_USER)
    os.setuid(ORDINARY_USER)
    os.environ.update(HOME="/box/home", TMPDIR="/box/tmp")
    os.execv(sys.executable, [sys.executable, "-m", f"{__package__}.{module}", *arguments])


def adopt() -> None:
    """Become the parent of processes whose own parent ends; leave no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def left_over(*, seconds: float) -> list[str]:
    """Return the command lines of descendants that still run after some seconds, and kill them all."""
    end = time.monotonic() + seconds
    while (left := _has_children()) and time.monotonic() < end:
        time.sleep(0.05)
    said = [_command(process) for process in _descendants()]
    while _has_children():  # again and again: what forks while it is killed is killed in the end
        for process in _descendants():
            with suppress(psutil.Error):
                process.kill()
    return said or ["one that moves faster than it is looked at"] * left


def _has_children() -> bool:
    """Bury what has ended; return whether anything is left: the system knows, a list may miss what moves."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _descendants() -> list[psutil.Process]:
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
