"""What went wrong on which rank, and how it is told."""

from __future__ import annotations

import linecache
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from coursekit.errors import CoursekitError

# What a rank raises when another one is gone: a consequence, however early it was noticed.
LOST_PEER = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|socket closed|failed to (recv|send)|"
    r"remote process exited|NCCL communicator was aborted",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RankFailure:
    """How one rank failed.

    Attributes:
        rank: of the process.
        reason: one line: exception with message, or what killed the process.
        traceback: of the exception from the user's function on, or where a killed or hanging rank stood;
            may be empty.
        time: seconds on the machine's monotonic clock.
        stopped: it had not failed itself; `launch` stopped it because another had.
    """

    rank: int
    reason: str
    traceback: str = ""
    time: float = 0.0
    stopped: bool = False

    @property
    def lost_peer(self) -> bool:
        """Whether the rank only noticed that another one was gone."""
        return bool(LOST_PEER.search(self.reason))


class RankError(CoursekitError):
    """A rank of a `launch` failed.

    Attributes:
        rank: the rank that failed first, all others' failures being its consequences.
        failures: every `RankFailure`, the first one first.
    """

    __module__ = "coursekit.parallel"  # where it is imported from; a notebook shows this name

    def __init__(self, failures: Sequence[RankFailure], world_size: int) -> None:
        self.failures = sort_failures(failures)
        self.rank = self.failures[0].rank
        self.world_size = world_size
        super().__init__(self._text())

    def __reduce__(self) -> tuple:
        return type(self), (self.failures, self.world_size)

    def _text(self) -> str:
        first, *others = self.failures
        text = f"rank {first.rank} of {self.world_size} failed first: {first.reason}"
        if first.lost_peer:
            text += "\n(the rank that it lost had ended without an error: do all ranks make the same calls?)"
        if first.traceback:
            text += f"\n\n{first.traceback.rstrip()}"
        if others:
            text += "\n\nand then:" + "".join(f"\n  rank {other.rank}: {_short(other)}" for other in others)
        return text


class RankTimeoutError(RankError, TimeoutError):
    """The ranks had not ended after `timeout_seconds`; says where each of them stood.

    Attributes:
        rank: the lowest rank that had not ended.
        failures: a `RankFailure` for each rank that had not ended, its stack in `traceback`.
    """

    __module__ = "coursekit.parallel"

    def __init__(self, failures: Sequence[RankFailure], world_size: int, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        super().__init__(failures, world_size)

    def __reduce__(self) -> tuple:
        return type(self), (self.failures, self.world_size, self.timeout_seconds)

    def _text(self) -> str:
        waiting = {failure.rank: failure for failure in self.failures}
        text = f"{len(waiting)} of {self.world_size} ranks had not ended after {self.timeout_seconds:g} s"
        for rank in range(self.world_size):
            if rank not in waiting:
                text += f"\nrank {rank} had ended"
            else:
                text += f"\nrank {rank} stood here:\n{waiting[rank].traceback.rstrip()}"
        return text


def sort_failures(failures: Sequence[RankFailure]) -> list[RankFailure]:
    """Return failures by time, but those that only lost a peer, or were stopped, come last."""

    def order(failure: RankFailure) -> tuple:
        return failure.stopped, failure.lost_peer, 0 if failure.stopped else failure.time, failure.rank

    return sorted(failures, key=order)


def died(rank: int, exit_code: int, *, stack: str = "", time: float = 0.0) -> RankFailure:
    """Return the failure of a rank that ended without a result."""
    if exit_code < 0:
        reason = f"killed by {_signal_name(-exit_code)}"
        if -exit_code == signal.SIGKILL:
            reason += " (by hand, or by the system for want of memory)"
    else:
        reason = f"ended with exit code {exit_code} before it gave a result"
    return RankFailure(rank, reason, format_stack(stack) if stack else "", time)


def format_stack(dump: str) -> str:
    """Return the user's frames of a faulthandler dump, outermost first, and the library call they wait in."""
    threads = re.split(r"\n(?=(?:Current thread|Thread) )", dump.strip())
    frames = re.findall(r'  File "(.+)", line (\d+) in (.+)', threads[-1])  # the main thread comes last
    shown = []
    for index, (file, line, name) in enumerate(frames):
        if _is_library(file):
            if index == 0 and os.path.dirname(file) != os.path.dirname(__file__):
                shown.append(f"    waiting in {name} ({os.path.basename(file)}, line {line})")
            continue
        source = linecache.getline(file, int(line)).strip()
        shown.append(f'  File "{file}", line {line}, in {name}' + (f"\n    {source}" if source else ""))
    return "\n".join(reversed(shown)) or "  (outside the function, or too deep in other code to tell)"


def _is_library(file: str) -> bool:
    here = os.path.dirname(__file__)
    return (
        "site-packages" in file
        or file.startswith(("<frozen", "<string>", here))
        or f"{os.sep}lib{os.sep}python" in file
    )


def _short(failure: RankFailure) -> str:
    line = failure.reason.strip().split("\n")[0]
    line = line if len(line) <= 120 else line[:117] + "..."
    return line + (" (it lost its connection to another rank)" if failure.lost_peer else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
