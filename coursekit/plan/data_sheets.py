"""What data sheets say of devices: dense peaks, memory, links, power."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from coursekit.units import GB, TB, GiB


@dataclasses.dataclass(frozen=True)
class Device:
    """One accelerator.

    Args:
        name: as in `DEVICES`.
        peak_flops_per_second: in bfloat16 (V100: float16), dense. Sheets often print the figure for 2:4
            sparsity, which is twice as large.
        memory_bytes: of the device, nominal.
        memory_bytes_per_second: between memory and chip.
        link_bytes_per_second: to its neighbours in a node, one direction; sheets print both directions
            together. None where there are only PCIe or Ethernet.
        watts: board power at most (TDP); None where no sheet says.
        source: of these figures.
    """

    name: str
    peak_flops_per_second: float
    memory_bytes: float
    memory_bytes_per_second: float
    link_bytes_per_second: float | None
    watts: float | None
    source: str


_NVIDIA = "NVIDIA data sheet"

DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        device.name: device
        for device in (
            Device("V100 SXM2", 125e12, 32 * GiB, 900 * GB, 150 * GB, 300, f"{_NVIDIA} V100, 2020"),
            Device("A100 SXM 40GB", 312e12, 40 * GiB, 1555 * GB, 300 * GB, 400, f"{_NVIDIA} A100, 2021"),
            Device("A100 SXM 80GB", 312e12, 80 * GiB, 2039 * GB, 300 * GB, 400, f"{_NVIDIA} A100, 2021"),
            Device("H100 SXM", 989e12, 80 * GiB, 3.35 * TB, 450 * GB, 700, f"{_NVIDIA} H100, 2023"),
            Device("H100 PCIe", 756e12, 80 * GiB, 2.0 * TB, None, 350, f"{_NVIDIA} H100, 2023"),
            Device("H200 SXM", 989e12, 141 * GB, 4.8 * TB, 450 * GB, 700, f"{_NVIDIA} H200, 2024"),
            Device("B200", 2.25e15, 180 * GB, 7.7 * TB, 900 * GB, 1000, f"{_NVIDIA} DGX B200, 2024"),
            Device("L4", 121e12, 24 * GB, 300 * GB, None, 72, f"{_NVIDIA} L4, 2023"),
            Device("RTX 4090", 165.2e12, 24 * GB, 1008 * GB, None, 450, "NVIDIA Ada whitepaper, 2022"),
            Device("RTX 3090", 71e12, 24 * GB, 936 * GB, None, 350, "NVIDIA Ampere GA102 whitepaper, 2020"),
            Device("TPU v4", 275e12, 32 * GiB, 1228 * GB, None, None, "Google Cloud, TPU v4"),
            Device("TPU v5p", 459e12, 95 * GiB, 2765 * GB, None, None, "Google Cloud, TPU v5p"),
        )
    }
)
"""Devices by name. Peaks equal those of karpathy/nanochat, `get_peak_flops`, where that has the device."""
