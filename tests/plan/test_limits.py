"""Limits of control groups (read from files as the kernel writes them), of affinity and of ulimit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coursekit.plan.limits import Limit, cgroup_limits, read_limits, tightest

GiB = 2**30


def files(root: Path, texts: dict[str, str]) -> Path:
    """Write a tree of files and return its root."""
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def values(limits):
    """Return (processors, bytes of memory) that the limits leave."""
    found = (tightest(limits, kind) for kind in ("processors", "memory"))
    return tuple(None if limit is None else limit.value for limit in found)


def test_a_container_with_2_processors_and_4_gib_says_so(tmp_path):
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/cpu.max": "200000 100000",
            "sys/fs/cgroup/memory.max": str(4 * GiB),
            "sys/fs/cgroup/memory.current": str(3 * GiB),
            "sys/fs/cgroup/memory.stat": f"anon {GiB}\ninactive_file {2 * GiB}",
        },
    )
    limits = cgroup_limits(root)
    assert values(limits) == (2.0, 4 * GiB)
    assert tightest(limits, "memory").used == GiB  # the cache of files gives way


def test_the_group_around_may_be_the_tighter_one(tmp_path):
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pods/one/app",
            "sys/fs/cgroup/pods/cpu.max": "max 100000",
            "sys/fs/cgroup/pods/one/cpu.max": "150000 100000",
            "sys/fs/cgroup/pods/one/app/cpu.max": "400000 100000",
            "sys/fs/cgroup/pods/one/memory.max": "max",
            "sys/fs/cgroup/pods/one/app/memory.max": str(8 * GiB),
            "sys/fs/cgroup/pods/one/app/memory.current": str(GiB),
        },
    )
    limits = cgroup_limits(root)
    assert values(limits) == (1.5, 8 * GiB)
    assert tightest(limits, "processors").source.endswith("/pods/one")


def test_no_limit_is_no_limit(tmp_path):
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice",
            "sys/fs/cgroup/user.slice/cpu.max": "max 100000",
            "sys/fs/cgroup/user.slice/memory.max": "max",
        },
    )
    assert values(cgroup_limits(root)) == (None, None)
    assert values(cgroup_limits(tmp_path / "nowhere")) == (None, None)


def test_version_1_of_control_groups_is_read_as_well(tmp_path):
    root = files(
        tmp_path,
        {
            # Docker names the group as the host does, and shows it as the top of the tree.
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/system.slice",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "25000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GiB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GiB),
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0",
        },
    )
    assert values(cgroup_limits(root)) == (0.5, 2 * GiB)


def test_a_quota_of_minus_one_is_none(tmp_path):
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert values(cgroup_limits(root)) == (None, None)


def test_a_group_outside_the_namespace_is_looked_up_at_the_top(tmp_path):
    root = files(tmp_path, {"proc/self/cgroup": "0::/../other", "sys/fs/cgroup/cpu.max": "100000 100000"})
    assert values(cgroup_limits(root)) == (1.0, None)


def usable_in_a_process(prefix: list[str]) -> list[float]:
    """Return [processors, bytes of memory] that `this_machine` finds in a process started so."""
    code = "from coursekit.plan import this_machine; m = this_machine()\n"
    code += "print(m.usable_processors, m.usable_memory_bytes, len(m.bound_by))"
    done = subprocess.run([*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity on this system")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor cannot be halved")
def test_a_real_process_bound_to_one_processor_and_6_gb_says_so():
    allowed = min(os.sched_getaffinity(0))
    shell = 'ulimit -v 6000000; exec "$@"'
    processors, memory, bound = usable_in_a_process(
        ["taskset", "-c", str(allowed), "bash", "-c", shell, "bash"]
    )
    assert processors == 1
    assert memory == 6_000_000 * 1024
    assert bound == 2


CPU_GROUPS = Path("/sys/fs/cgroup/cpu")


@pytest.mark.skipif(
    not (CPU_GROUPS / "cpu.cfs_quota_us").exists() or not os.access(CPU_GROUPS, os.W_OK),
    reason="this user may not make control groups of version 1 here",
)
def test_a_real_control_group_with_half_a_processor_says_so():
    group = CPU_GROUPS / f"coursekit_test_{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("50000")
        shell = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        processors, _, bound = usable_in_a_process(["bash", "-c", shell, "bash"])
        assert processors == 0.5
        assert bound >= 1
    finally:
        group.rmdir()


def test_on_this_machine_every_limit_is_positive():
    assert all(limit.value > 0 for limit in read_limits())


def test_the_tightest_of_nothing_is_none():
    assert tightest([Limit("memory", 1, "here")], "processors") is None
