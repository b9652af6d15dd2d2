"""Whether the processes of a box have more memory than they may, all together."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping

from coursekit.grading.sandbox.usage import Usage, proportional_bytes, unseen_bytes

# A process is measured in hundredths of a second, unless it keeps its mappings from being read.
EXACT_SECONDS = 5.0
AT_ONCE_SECONDS = 0.05


class MemoryWatch:
    """Compares the memory of a box with its bound, time and again.

    Pages that forked processes share count once for each while that stays below the bound. Beyond it they
    are divided among those that share them, by a thread: a process that forks without end holds up who reads
    its mappings, and who watches a box must not be held up. What cannot be told within `EXACT_SECONDS`, or
    grows by as much as the bound meanwhile, is too much.

    Args:
        most: bytes that the processes may have together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._count: _Count | None = None
        self._over: tuple[float, int] | None = None  # since when it looks like too much, and how much it was

    def is_exceeded(self, usages: Mapping[int, Usage]) -> bool:
        """Return whether these processes, pid -> usage, have too much."""
        seen = sum(usage.resident for usage in usages.values())
        # Page tables take a 512th of what is mapped, at most; of what is swapped out nothing is resident.
        unseen = 0
        if sum(usage.mapped for usage in usages.values()) > 4 * self.most:
            unseen = sum(map(unseen_bytes, usages))
        if seen + unseen <= self.most:
            self._over = None
            return False
        since, before = self._over = self._over or (time.monotonic(), seen)
        if self._count is None:
            self._count = _Count(usages)
            self._count.join(AT_ONCE_SECONDS)
        if self._count.is_alive():
            return time.monotonic() - since > EXACT_SECONDS or seen - before > self.most
        exact, self._count, self._over = self._count.bytes, None, None
        return exact + unseen > self.most


class _Count(threading.Thread):
    """Adds up what processes have, each page once."""

    def __init__(self, pids: Collection[int]) -> None:
        super().__init__(daemon=True)
        self.pids, self.bytes = list(pids), 0
        self.start()

    def run(self) -> None:
        for pid in self.pids:
            self.bytes += proportional_bytes(pid)
