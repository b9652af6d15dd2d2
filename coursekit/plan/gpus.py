"""Which GPUs a machine has, and which of them the installed torch can use."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import dataclass

_QUERY = "name,memory.total,compute_cap,driver_version"


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it.

    Attributes:
        name: as "NVIDIA GeForce GTX 1050 Ti".
        memory_bytes: of the card.
        compute_capability: (major, minor) of NVIDIA's architectures, as (6, 1); None if unknown.
        driver: its version, as "580.65.06"; None if unknown.
    """

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch: what it was built for, and what it found.

    Attributes:
        version: as "2.13.0+cu126".
        cuda: the CUDA version it was built with; None for a build without.
        arches: what it has kernels for, as ("sm_75", "sm_80", "compute_120").
        device: what it would train on now: "cuda", "mps" or "cpu".
    """

    version: str
    cuda: str | None = None
    arches: tuple[str, ...] = ()
    device: str = "cpu"


def nvidia_gpus() -> list[Gpu]:
    """Return the GPUs that NVIDIA's driver lists; none without the driver. Does not import torch."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_nvidia_smi(done.stdout)


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """Return the GPUs in the output of `nvidia-smi --query-gpu=name,memory.total,compute_cap,driver_version`.

    >>> parse_nvidia_smi("NVIDIA GeForce GTX 1050 Ti, 4096, 6.1, 580.65.06")[0].compute_capability
    (6, 1)
    """
    rows = [
        [part.strip() for part in line.rsplit(",", 3)] for line in text.splitlines() if line.count(",") >= 3
    ]
    return [
        # Machines whose GPU shares the processor's memory answer "[N/A]" for it.
        Gpu(name, int(memory) * 2**20 if memory.isdigit() else 0, _pair(capability), driver)
        for name, memory, capability, driver in rows
    ]


def torch_build() -> TorchBuild | None:
    """Return what the installed torch was built for and can use; None without torch. Imports torch."""
    try:
        import torch
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # its complaint about an old card or driver: said better by the caller
        found = torch.cuda.is_available()
        arches = tuple(torch.cuda.get_arch_list())
    device = "cuda" if found else "mps" if torch.backends.mps.is_available() else "cpu"
    return TorchBuild(torch.__version__, torch.version.cuda, arches, device)


def runs_on(capability: tuple[int, int], arches: tuple[str, ...]) -> bool:
    """Return whether a build with kernels for `arches` runs on a GPU of this compute capability.

    Compiled code (`sm_80`) runs on the same major version from its own minor version on; intermediate code
    (`compute_80`, PTX) is compiled by the driver for everything that is newer. Forms such as `sm_90a` are
    for that one architecture.

    Source: CUDA C++ Programming Guide, "Binary compatibility" and "PTX compatibility"
        (https://docs.nvidia.com/cuda/cuda-c-programming-guide/).

    >>> pascal = (6, 1)
    >>> runs_on(pascal, ("sm_50", "sm_60", "sm_70")), runs_on(pascal, ("sm_75", "sm_80", "compute_120"))
    (True, False)
    """
    for arch in arches:
        kind, _, number = arch.partition("_")
        if kind not in ("sm", "compute"):
            continue
        if not number.isdigit():
            if number.endswith("a") and number[:-1] == f"{capability[0]}{capability[1]}":
                return True
            continue
        built = int(number[:-1]), int(number[-1])
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def _pair(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
