"""Limits that the system itself keeps, of each process; the keeper watches what they cannot: the sum."""

from __future__ import annotations

import contextlib
import os
import resource

from coursekit.grading.sandbox.policy import Policy


def set_limits(policy: Policy, *, tasks: int | None) -> None:
    """Set this process's resource limits, which all that it starts inherits and cannot raise.

    Args:
        policy: the bounds.
        tasks: how many processes and threads its user may have in all; None where that cannot be told apart.
    """
    limits = {
        "RLIMIT_DATA": policy.memory_bytes,
        "RLIMIT_CPU": policy.cpu_seconds,
        "RLIMIT_FSIZE": policy.file_bytes,
        "RLIMIT_NOFILE": policy.open_files,
        "RLIMIT_CORE": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if tasks is not None:
        limits["RLIMIT_NPROC"] = tasks
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is not None:  # not every system has all of them
            # One second more until the end that says nothing: SIGXCPU, the first blow, tells what it is for.
            _lower(kind, value, value + 1 if name == "RLIMIT_CPU" else value)


def be_first_to_go() -> None:
    """Have this process and its children end before all others where memory runs out, not the grader.

    Needs a process that may be looked into. Set by root, it cannot be taken back by anybody else.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def tasks_of_user() -> int:
    """Return how many processes and threads this process's user has; Linux only."""
    count, user = 0, os.geteuid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _lower(kind: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some that Linux accepts
        resource.setrlimit(kind, (soft, hard))
