"""What the machine at hand has, and what of it this process may use."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from coursekit.errors import InputError

from .gpus import Gpu, TorchBuild, nvidia_gpus, torch_build
from .limits import Limit, read_limits, tightest


@dataclass(frozen=True)
class Machine:
    """A machine's hardware and software, as far as training asks about them.

    Attributes:
        system: "Linux", "macOS" or "Windows".
        release: the system's name for people, as "Debian GNU/Linux 12 (bookworm)".
        architecture: "x86_64" or "arm64".
        processor: its name.
        processors: logical processors of the whole machine.
        usable_processors: processors' worth of time that this process may use; 1.5 is possible.
        memory_bytes: of the whole machine.
        usable_memory_bytes: that this process may use.
        available_memory_bytes: of these not in use now.
        free_disk_bytes: where the process works.
        spinning_disk: whether that disk is a hard disk; None if unknown, as in a virtual machine.
        python: version, as "3.11.4".
        gpus: NVIDIA GPUs that the driver lists.
        torch: the installed build, or None.
        tensorflow: the installed version, or None.
        bound_by: in words, which limits make the usable less than the whole.
    """

    system: str
    release: str
    architecture: str
    processor: str
    processors: int
    usable_processors: float
    memory_bytes: int
    usable_memory_bytes: int
    available_memory_bytes: int
    free_disk_bytes: int
    python: str
    spinning_disk: bool | None = None
    gpus: tuple[Gpu, ...] = ()
    torch: TorchBuild | None = None
    tensorflow: str | None = None
    bound_by: tuple[str, ...] = ()


def this_machine(*, folder: Path | str = ".") -> Machine:
    """Return what this machine has and what this process may use of it.

    Limits of containers, affinity and `ulimit` count: in a container with two processors' worth of time and
    4 GiB, `usable_processors` is 2.0 and `usable_memory_bytes` is 2**32, whatever the host has.
    Imports torch if it is installed, never tensorflow.

    Args:
        folder: where the disk is looked at.
    Raises: InputError if the folder does not exist, or a system that is none of the three.
    """
    if not Path(folder).is_dir():
        raise InputError("no such folder", expected="a folder on the disk to look at", got=str(folder))
    processors = os.cpu_count() or 1
    memory, available = _memory()
    limits = read_limits()
    cpu_limit, memory_limit = (tightest(limits, kind) for kind in ("processors", "memory"))
    rooms = [limit.value - limit.used for limit in limits if limit.kind == "memory"]
    return Machine(
        system=_system(),
        release=_release(),
        architecture={"AMD64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        processor=_processor(),
        processors=processors,
        usable_processors=min(processors, cpu_limit.value) if cpu_limit else processors,
        memory_bytes=memory,
        usable_memory_bytes=int(min(memory, memory_limit.value)) if memory_limit else memory,
        available_memory_bytes=int(max(0, min([available, *rooms]))),
        free_disk_bytes=shutil.disk_usage(folder).free,
        spinning_disk=_spins(Path(folder)),
        python=platform.python_version(),
        gpus=tuple(nvidia_gpus()),
        torch=torch_build(),
        tensorflow=_installed("tensorflow", ("tensorflow", "tensorflow-cpu", "tf-nightly")),
        bound_by=_binding((cpu_limit, processors), (memory_limit, memory)),
    )


def _binding(*pairs: tuple[Limit | None, float]) -> tuple[str, ...]:
    return tuple(limit.source for limit, whole in pairs if limit is not None and limit.value < whole)


def _system() -> str:
    systems = {"Linux": "Linux", "Darwin": "macOS", "Windows": "Windows"}
    if platform.system() not in systems:
        raise InputError("unknown system", expected=" or ".join(systems.values()), got=platform.system())
    return systems[platform.system()]


def _release() -> str:
    if sys.platform == "linux":
        try:
            name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
        except OSError:
            name = "Linux"
        return name + (" under WSL" if "microsoft" in platform.release().lower() else "")
    return f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.platform(terse=True)


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):  # Arm's kernels give no name
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    return platform.processor() or platform.machine()


def _memory() -> tuple[int, int]:
    """Return (bytes of memory, bytes that programs could have now)."""
    if sys.platform == "linux":
        rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        sizes = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}
        return sizes["MemTotal"], sizes["MemAvailable"]
    if sys.platform == "darwin":
        total = int(_sysctl("hw.memsize"))
        pages = {
            line.split(":")[0]: int(line.split(":")[1].strip(" ."))
            for line in _output("vm_stat").splitlines()[1:]
            if ":" in line
        }
        reusable = sum(pages.get(f"Pages {kind}", 0) for kind in ("free", "inactive", "speculative"))
        return total, min(total, reusable * os.sysconf("SC_PAGE_SIZE"))
    return _windows_memory()


def _windows_memory() -> tuple[int, int]:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("size", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong) for name in ("total", "available", "a", "b", "c", "d", "e")
        ]

    status = Status(size=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.total, status.available


def _spins(folder: Path) -> bool | None:
    """Return whether the folder's disk has moving parts, where Linux says so."""
    device = folder.stat().st_dev
    base = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}") if sys.platform == "linux" else None
    if base is None or not base.exists():  # a network's or a container's file system stands on no device
        return None
    disk = base.resolve()
    if disk.name.startswith(("vd", "xvd")):  # a virtual disk says "spins" unless its host was told otherwise
        return None
    for place in (disk, disk.parent):  # a partition's settings are those of its disk
        if (place / "queue/rotational").is_file():
            return (place / "queue/rotational").read_text().strip() == "1"
    return None


def _installed(module: str, distributions: tuple[str, ...]) -> str | None:
    """Return the version of a module that is not imported for that."""
    if util.find_spec(module) is None:
        return None
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _sysctl(name: str) -> str:
    return _output("sysctl", "-n", name).strip()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
