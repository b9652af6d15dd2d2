"""What a process may use of its machine: control groups, processor affinity and `ulimit` give it less."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Limit:
    """A ceiling on what this process may use.

    Attributes:
        kind: "processors" or "memory".
        value: processors' worth of time, or bytes.
        source: where it is set, for people.
        used: bytes that count against it already and cannot be dropped; 0 for processors.
    """

    kind: str
    value: float
    source: str
    used: float = 0


def read_limits(root: Path | str = "/") -> list[Limit]:
    """Return every limit on this process, those that bind and those that do not.

    Counted: quotas of control groups, version 1 and 2, of the group and of all groups around it (so a
    container's, a Kubernetes pod's, a systemd slice's); the processors that the process may run on;
    `ulimit -v`.

    Args:
        root: the folder that `proc` and `sys` stand in.
    """
    return [*cgroup_limits(root), *_affinity(), *_address_space(Path(root))]


def cgroup_limits(root: Path | str = "/") -> list[Limit]:
    """Return the limits of the process's control groups; none where the system has no such groups.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max, memory.max) and
        https://docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us, version 1).
    """
    limits = []
    for folder, name in _groups(Path(root)):
        limits += [limit for read in (_quota, _memory) if (limit := read(folder, name)) is not None]
    return limits


def tightest(limits: Iterable[Limit], kind: str) -> Limit | None:
    """Return the lowest limit of a kind, or None.

    >>> tightest([Limit("memory", 8e9, "pod"), Limit("memory", 2e9, "container")], "memory").source
    'container'
    """
    return min((limit for limit in limits if limit.kind == kind), key=lambda limit: limit.value, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folder and name of the process's groups and of all above them, each once."""
    seen = set()
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        mounts = [root / "sys/fs/cgroup" / name for name in (controllers, *controllers.split(","), "unified")]
        own = PurePosixPath(path)
        # A container often sees its own group as the top of the tree, whatever its name is outside: a path
        # that is not there is left out, and the top is looked at in any case.
        for mount in (root / "sys/fs/cgroup", *mounts):
            for group in (own, *own.parents) if ".." not in own.parts else (PurePosixPath("/"),):
                folder = mount / str(group).lstrip("/")
                if folder not in seen and folder.is_dir():
                    seen.add(folder)
                    yield folder, str(group)


def _quota(folder: Path, name: str) -> Limit | None:
    version_2 = _words(folder / "cpu.max")  # "200000 100000", or "max 100000"
    quota, period = version_2 if len(version_2) == 2 else (None, None)
    if quota is None:  # version 1; -1 is no limit
        quota, period = (
            next(iter(_words(folder / f"cpu.cfs_{part}_us")), None) for part in ("quota", "period")
        )
    if quota is None or period is None or quota in ("max", "-1"):
        return None
    return Limit("processors", int(quota) / int(period), f"processor quota of control group {name}")


def _memory(folder: Path, name: str) -> Limit | None:
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        words = _words(folder / limit)
        if words and words[0] != "max":
            statistics = dict(
                line.split() for line in _lines(folder / "memory.stat") if len(line.split()) == 2
            )
            # The cache of files counts as usage, and the kernel drops it before it refuses memory.
            used = int((_words(folder / usage) or [0])[0]) - int(statistics.get(cache, 0))
            return Limit("memory", int(words[0]), f"memory limit of control group {name}", max(used, 0))
    return None


def _affinity() -> list[Limit]:
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return []
    allowed = len(os.sched_getaffinity(0))
    return [Limit("processors", allowed, "processor affinity of this process (taskset, cpuset)")]


def _address_space(root: Path) -> list[Limit]:
    try:
        import resource
    except ImportError:  # Windows
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return []
    pages = _words(root / "proc/self/statm")
    used = int(pages[0]) * resource.getpagesize() if pages else 0
    return [Limit("memory", soft, "ulimit -v of this process", used)]


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not this system, not this version, or not ours to read
        return []
