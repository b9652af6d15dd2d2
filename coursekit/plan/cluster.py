"""The machines that a training runs on, as far as a plan depends on them."""

from __future__ import annotations

import dataclasses
from typing import Any

from coursekit.errors import InputError
from coursekit.plan.data_sheets import DEVICES, Device
from coursekit.units import GB

PCIE_BYTES_PER_SECOND = 32 * GB
"""PCIe 4.0 with 16 lanes, one direction: what joins devices that have no links of their own."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices, numbered one after the other, and two networks: within nodes and between them.

    Args:
        num_nodes: nodes; with one there is no network between.
        devices_per_node: devices that the fast links join.
        device: a name of `DEVICES`, or a `Device` of your own.
        intra_bytes_per_second: what a device sends to the others of its node, in one direction; None is the
            data sheet's figure, and PCIe's where it has none.
        inter_bytes_per_second: what a device sends to other nodes, in one direction. The default is one
            adapter of 400 Gb/s for each device, as the clusters of Llama 3 had.
        hop_seconds: from one node to the next on a ring, whatever it carries. The default is an order of
            magnitude; rings of thousands of ranks are slow because of it.
        efficiency: share of the peak that a device reaches while nothing waits for the network: matrix
            products, and all that lies between them. No data sheet has it: measure it. The default is what
            makes published runs come out, see `tests/plan/test_published_runs.py`.
        usable_memory: share of the device's memory that the plan may use. The rest is the driver's and the
            communication library's, or lost between allocations.
    Raises: InputError for a number that is not possible, or an unknown device.
    Source: Grattafiori et al. 2024, section 3.3.1 (https://arxiv.org/abs/2407.21783).

    >>> Cluster(num_nodes=1024, device="H100 SXM").num_devices
    8192
    """

    num_nodes: int = 1
    devices_per_node: int = 8
    device: Device | str = "H100 SXM"
    intra_bytes_per_second: float | None = None
    inter_bytes_per_second: float = 50 * GB
    hop_seconds: float = 10e-6
    efficiency: float = 0.6
    usable_memory: float = 0.9

    def __post_init__(self) -> None:
        sheet = self.sheet
        if self.intra_bytes_per_second is None:
            links = sheet.link_bytes_per_second or PCIE_BYTES_PER_SECOND
            object.__setattr__(self, "intra_bytes_per_second", links)
        for name in ("num_nodes", "devices_per_node"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"wrong {name}", expected="a whole number >= 1", got=repr(value))
        for name in ("intra_bytes_per_second", "inter_bytes_per_second"):
            if not getattr(self, name) > 0:
                raise InputError(f"wrong {name}", expected="more than 0", got=getattr(self, name))
        if not self.hop_seconds >= 0:
            raise InputError("wrong hop_seconds", expected="0 or more", got=self.hop_seconds)
        for name in ("efficiency", "usable_memory"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"wrong {name}", expected="above 0, at most 1", got=getattr(self, name))

    @property
    def num_devices(self) -> int:
        """Devices of all nodes."""
        return self.num_nodes * self.devices_per_node

    @property
    def sheet(self) -> Device:
        """The device's data sheet."""
        if isinstance(self.device, Device):
            return self.device
        if self.device not in DEVICES:
            raise InputError("unknown device", expected=", ".join(DEVICES), got=repr(self.device))
        return DEVICES[self.device]

    @property
    def usable_bytes(self) -> float:
        """Memory of a device that a plan may use."""
        return self.sheet.memory_bytes * self.usable_memory

    def scalars(self) -> dict[str, Any]:
        """Return the cluster as keyword arguments of the formulas."""
        return {
            "peak_flops_per_second": self.sheet.peak_flops_per_second,
            "memory_bytes_per_second": self.sheet.memory_bytes_per_second,
            "efficiency": self.efficiency,
            "devices_per_node": self.devices_per_node,
            "intra_bytes_per_second": self.intra_bytes_per_second,
            "inter_bytes_per_second": self.inter_bytes_per_second,
            "hop_seconds": self.hop_seconds,
        }
