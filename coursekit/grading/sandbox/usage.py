"""What the processes of a box have, as the system tells it; each is left out once it is gone.

None of this waits for a process that is looked at, but `proportional_bytes`: it needs the list of a process's
mappings, which whoever forks or maps without end hardly ever lets go of.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """What a process has: bytes in memory, bytes mapped, processes and threads; and its session."""

    resident: int
    mapped: int
    tasks: int
    session: int


def usage_of(pid: int) -> Usage | None:
    """Return what a process has, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return Usage(int(fields[21]) * _PAGE, int(fields[20]), int(fields[17]), int(fields[3]))
    except (OSError, IndexError):
        return None


def unseen_bytes(pid: int) -> int:
    """Return what a process has that is not counted as resident: its page tables, and what is swapped out."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = [line.split() for line in file if line.startswith(("VmPTE:", "VmSwap:"))]
        return sum(int(line[1]) * 1024 for line in lines)
    except (OSError, IndexError, ValueError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Return a process's memory with shared pages divided among those that share them. May take for ever."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        usage = usage_of(pid)  # it forbids being looked at: then all of it is its own
        return usage.resident if usage else 0
