"""Machines of other people, as facts."""

from __future__ import annotations

import dataclasses

from coursekit.plan import Gpu, Machine, TorchBuild
from coursekit.units import GB, GiB

CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
CUDA_12_6 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")

DESKTOP = Machine(
    system="Linux",
    release="Ubuntu 24.04",
    architecture="x86_64",
    processor="AMD Ryzen 5 7600",
    processors=12,
    usable_processors=12,
    memory_bytes=32 * GiB,
    usable_memory_bytes=32 * GiB,
    available_memory_bytes=24 * GiB,
    free_disk_bytes=200 * GB,
    python="3.12.4",
    spinning_disk=False,
    gpus=(Gpu("NVIDIA GeForce RTX 4070", 12282 * 2**20, (8, 9), "580.65.06"),),
    torch=TorchBuild("2.13.0+cu130", "13.0", CUDA_13, "cuda"),
    tensorflow="2.21.0",
)


def changed(**facts) -> Machine:
    """Return the desktop with other facts."""
    return dataclasses.replace(DESKTOP, **facts)


GTX_1050_TI = (Gpu("NVIDIA GeForce GTX 1050 Ti", 4096 * 2**20, (6, 1), "580.65.06"),)
OLD_CARD = changed(gpus=GTX_1050_TI, torch=TorchBuild("2.13.0+cu130", "13.0", CUDA_13, "cuda"))
CONTAINER = changed(
    processors=64,
    usable_processors=2.0,
    memory_bytes=256 * GiB,
    usable_memory_bytes=4 * GiB,
    available_memory_bytes=3 * GiB,
    gpus=(),
    torch=TorchBuild("2.13.0+cpu"),
    bound_by=("processor quota of control group /", "memory limit of control group /"),
)
MACBOOK = changed(
    system="macOS",
    release="macOS 15.1",
    architecture="arm64",
    processor="Apple M3",
    processors=8,
    usable_processors=8,
    memory_bytes=16 * GiB,
    usable_memory_bytes=16 * GiB,
    available_memory_bytes=6 * GiB,
    spinning_disk=None,
    gpus=(),
    torch=TorchBuild("2.13.0", device="mps"),
    tensorflow=None,
)
INTEL_MAC = dataclasses.replace(
    MACBOOK, architecture="x86_64", processor="Intel(R) Core(TM) i5", torch=TorchBuild("2.2.2")
)
WINDOWS = changed(system="Windows", release="Windows-10")
