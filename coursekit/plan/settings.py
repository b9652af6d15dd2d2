"""With which settings to begin on a machine: device, precision, threads, micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

from .gpus import Gpu
from .hardware import Machine
from .requirements import best_gpu


@dataclass(frozen=True)
class Settings:
    """Where to begin; a measurement of your own beats each of them.

    Attributes:
        device: "cuda", "mps" or "cpu".
        precision: "bf16" or "fp16" (autocast; fp16 with loss scaling) or "fp32".
        threads: for `torch.set_num_threads`, in one process.
        memory_bytes: of the device, which a run may fill.
        reasons: why, by the name of the setting.
    """

    device: str
    precision: str
    threads: int
    memory_bytes: int
    reasons: dict[str, str]


def suggest_settings(machine: Machine) -> Settings:
    """Return the settings to begin with on a machine.

    Threads: as many as the process has processors' worth of time. torch by itself counts the processors of
    the affinity mask and knows nothing of a container's quota: its surplus threads use the quota up early in
    each period of 100 ms, and then all of them stand still until the next.
    """
    device = machine.torch.device if machine.torch is not None else "cpu"
    threads = max(1, int(machine.usable_processors))
    gpu = best_gpu(machine.gpus) if device == "cuda" and machine.gpus else None
    precision, why = _precision(device, gpu)
    limited = machine.usable_processors < machine.processors
    reasons = {
        "device": "the fastest that torch finds" if device != "cpu" else "torch finds no GPU that it can use",
        "precision": why,
        "threads": "what this process may use" + (f" of {machine.processors}" if limited else ""),
    }
    memory = gpu.memory_bytes if gpu is not None else machine.available_memory_bytes
    return Settings(device, precision, threads, memory, reasons)


def _precision(device: str, gpu: Gpu | None) -> tuple[str, str]:
    capability = gpu.compute_capability if gpu is not None else None
    if device == "mps":
        return "fp32", "the safe one on Apple's GPU; measure fp16 autocast for your model"
    if device == "cpu":
        return "fp32", "16 bits are slower on most CPUs: measure before you use them"
    if capability is None or capability >= (8, 0):
        return "bf16", "native since Ampere (2020), and needs no loss scaling"
    if capability >= (7, 0):
        return "fp16", "this card has fast fp16 and no bf16; scale the loss"
    return "fp32", "16-bit arithmetic is not faster on consumer cards before 2018"
