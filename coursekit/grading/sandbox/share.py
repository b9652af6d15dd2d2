"""A box's share of the processors: all that a kernel starts together weighs as much as the kernel itself.

The system shares processors among threads, or among sessions of processes first: who starts a hundred would
have a hundred shares, and an honest neighbour's cell would reach its limit while it waits for its turn.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping

# Each step of niceness is a share of 1 / 1.25 of the one before; there are 19.
_STEP, _MOST = 1.25, 19


def niceness(crowd: int) -> int:
    """Return how nice each of so many has to be for all together to have one share, as far as that goes.

    >>> [niceness(crowd) for crowd in (0, 1, 4, 16, 1000)]
    [0, 0, 6, 12, 19]
    """
    return min(_MOST, round(math.log(max(1, crowd), _STEP)))


def share_with_the_crowd(kernel: int, sessions: Mapping[int, int]) -> None:
    """Have all threads that run beside the kernel's first take one share together, and so all other sessions.

    Linux only. The kernel itself keeps its share: an ordinary user could not give it back.

    Args:
        kernel: its process.
        sessions: process -> its session, of all in the box.
    """
    running = [task for pid in sessions for task in _running(pid) if task != kernel]
    for task in running:
        with contextlib.suppress(OSError):  # it has ended, or may not be made less nice
            least = os.getpriority(os.PRIO_PROCESS, kernel)
            os.setpriority(os.PRIO_PROCESS, task, least + niceness(len(running)))
    others = {session: pid for pid, session in sessions.items() if session != sessions.get(kernel)}
    for pid in others.values():
        _set_session(pid, niceness(len(others)))


def _set_session(pid: int, nice: int) -> None:
    # OSError: this system knows no shares of sessions, or takes no more than ten changes a second.
    with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "r+") as file:
        if not file.read().endswith(f" nice {nice}\n"):
            file.write(str(nice))


def _running(pid: int) -> Iterable[int]:
    """Yield the threads of a process that have a processor or wait for one."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] == b"R":
                    yield int(task)
