"""What a kernel may do: a policy is plain data that travels to whoever starts the kernel."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coursekit.errors import InputError

LAYERS = ("files", "landlock", "network", "processes", "ipc", "system_calls", "account", "limits")
_MIB = 2**20


@dataclass(frozen=True)
class Policy:
    """The layers of a kernel's sandbox, and its bounds.

    layers: names out of `LAYERS`; none at all is a forked kernel without a sandbox.
    memory_bytes: of all its processes together (watched), and of each by itself (refused by the system).
    cpu_seconds: of processor time of each process.
    tasks: processes and threads, all together; processes alone: each may map so much that the system needs
        megabytes to remember it, and hold as much in pipes.
    locks: on parts of files, which the system remembers as well.
    file_bytes: the size of one file; box_bytes: of all files together; shm_bytes: shared memory.
    open_files: of each process; sockets: of all together, as each holds memory that no process has.
    sessions: of processes, as the system gives each session the same share of the processors.
    preload: modules that the template has imported before the fork. "module:function" is called besides, with
        `fork=True`, at the start of each kernel, which has one thread then and has computed nothing.
    """

    layers: frozenset[str] = frozenset()
    memory_bytes: int = 4096 * _MIB
    cpu_seconds: int = 1200
    tasks: int = 1024
    processes: int = 128
    locks: int = 1024
    file_bytes: int = 256 * _MIB
    box_bytes: int = 512 * _MIB
    shm_bytes: int = 512 * _MIB
    open_files: int = 1024
    sockets: int = 2048
    sessions: int = 8
    preload: tuple[str, ...] = ("numpy", "torch", "torch._dynamo")

    def __post_init__(self) -> None:
        unknown = sorted(self.layers - set(LAYERS))
        if unknown:
            raise InputError("unknown layer of the sandbox", expected=f"some of {LAYERS}", got=unknown)
        for layer in ("processes", "account"):
            if layer in self.layers and "files" not in self.layers:
                # The first needs a /proc of its own, the second an interpreter that a stranger can reach.
                raise InputError(
                    f"the layer {layer!r} stands on another one", fix="add 'files' to the layers"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the policy as plain data.

        >>> Policy.from_json(Policy(frozenset({"network"})).to_json()).layers
        frozenset({'network'})
        """
        data = dataclasses.asdict(self)
        return {**data, "layers": sorted(self.layers), "preload": list(self.preload)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Policy:
        """Return the policy that `to_json` wrote."""
        return cls(**{**data, "layers": frozenset(data["layers"]), "preload": tuple(data["preload"])})


# Ranks are forked from a process that has imported torch; a kernel's own fork has, a new interpreter would
# take seconds for it.
_LAUNCHING = ("torch.distributed", "torch.nn.parallel", "cloudpickle", "coursekit.parallel:prepare_launch")
_ON_TORCH = {"torch"} | {f"coursekit.{room}" for room in ("data", "finetune", "models", "parallel", "train")}


def modules_for(code: str) -> tuple[str, ...]:
    """Return what a template imports for notebooks with this code: one framework, or none.

    >>> modules_for("import torch")
    ('numpy', 'torch', 'torch._dynamo')
    >>> modules_for("from coursekit.parallel import launch")[-1]
    'coursekit.parallel:prepare_launch'
    >>> modules_for("x = 1")
    ()
    """
    imported = set(re.findall(r"^\s*(?:import|from)\s+(coursekit\.\w+|\w+)", code, re.MULTILINE))
    # TensorFlow comes first: beside torch in one process nobody tests it.
    if imported & {"tensorflow", "keras", "coursekit.tf"}:
        return ("numpy", "tensorflow")
    if imported & _ON_TORCH:
        # The first step of an optimizer imports torch._dynamo, which takes a second.
        return ("numpy", "torch", "torch._dynamo", *(_LAUNCHING if "coursekit.parallel" in imported else ()))
    return ("numpy",) if "numpy" in imported else ()


@functools.cache
def readable_paths() -> tuple[str, ...]:
    """Return what a kernel has to read: interpreter, libraries, this package, and the system's shared files.

    Nothing else of `sys.path`: it may hold the course's own folder.
    """
    paths = {Path(sys.base_prefix, name) for name in ("bin", "lib")} | _interpreter_paths()
    paths |= {Path(path) for path in _SYSTEM}
    return tuple(str(path) for path in _outermost(path for path in paths if path.exists()))


_SYSTEM = (
    *("/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/include", "/usr/share"),
    *("/usr/local/lib", "/bin", "/lib", "/lib64"),
    *("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime"),
    # gloo looks for network devices and their PCI addresses; torch for processors.
    *("/sys/devices", "/sys/class/net", "/sys/bus/pci"),
)


def _interpreter_paths() -> set[Path]:
    names = ("stdlib", "platstdlib", "purelib", "platlib", "include", "scripts")
    paths = {Path(sysconfig.get_path(name)) for name in names}
    paths |= {Path(sys.prefix, name) for name in ("pyvenv.cfg", "lib", "lib64", "share")}
    paths.add(Path(__file__).parents[2])  # coursekit, wherever it is installed
    if sys.prefix == "/usr":
        paths.discard(Path("/usr/share"))
    return paths


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that lie below none of the others, sorted."""
    kept: list[Path] = []
    for path in sorted(paths):
        if not any(path.is_relative_to(above) for above in kept):
            kept.append(path)
    return kept
