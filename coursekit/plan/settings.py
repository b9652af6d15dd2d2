"""With which settings to begin on a machine: device, precision, threads, micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .gpus import Gpu
from .hardware import Machine
from .layout import Layout
from .memory_per_device import memory
from .requirements import best_gpu

USABLE_SHARE = 0.8
"""Of the device's memory: the rest is for the CUDA context, fragmentation, and other programs."""
MAX_MICRO_BATCH_SIZE = 64
_RECIPES = {"fp32": "fp32_16", "bf16": "autocast_18", "fp16": "autocast_18"}


@dataclass(frozen=True)
class Settings:
    """Where to begin; a measurement of your own beats each of them.

    Attributes:
        device: "cuda", "mps" or "cpu".
        precision: "bf16" or "fp16" (autocast; fp16 with loss scaling) or "fp32".
        threads: for `torch.set_num_threads`, in one process.
        memory_bytes: of the device: what the card has, or what is free for a process on the CPU.
        micro_batch_size: sequences a forward pass, a power of two; 0 if not even one fits, None without a
            model.
        reasons: why, by the name of the setting.
    """

    device: str
    precision: str
    threads: int
    memory_bytes: int
    micro_batch_size: int | None
    reasons: dict[str, str]


def suggest_settings(machine: Machine, shape: Any = None, *, seq_len: int = 1024) -> Settings:
    """Return the settings to begin with on a machine.

    Threads: as many as the process has processors' worth of time. torch by itself counts the processors of
    the affinity mask and knows nothing of a container's quota: its surplus threads use the quota up early in
    each period of 100 ms, and then all of them stand still until the next.

    Micro-batch: the largest power of two, up to 64, for which `memory` predicts at most `USABLE_SHARE` of
    the device's memory.

    Args:
        machine: as `this_machine()`.
        shape: of the model to train, a `coursekit.models.GPTConfig`; None leaves the micro-batch out.
        seq_len: tokens of a sequence.
    Raises: InputError for a sequence that the shape does not allow.
    """
    device = machine.torch.device if machine.torch is not None else "cpu"
    gpu = best_gpu(machine.gpus) if device == "cuda" and machine.gpus else None
    precision, why = _precision(device, gpu)
    limited = machine.usable_processors < machine.processors
    reasons = {
        "device": "the fastest that torch finds" if device != "cpu" else "torch finds no GPU that it can use",
        "precision": why,
        "threads": "what this process may use" + (f" of {machine.processors}" if limited else ""),
    }
    memory_bytes = gpu.memory_bytes if gpu is not None else machine.available_memory_bytes
    size = None
    if shape is not None:
        size = _micro_batch_size(shape, seq_len, _RECIPES[precision], USABLE_SHARE * memory_bytes)
        reasons["micro_batch_size"] = f"most that is predicted to fit, of {seq_len:,} tokens each"
    threads = max(1, int(machine.usable_processors))
    return Settings(device, precision, threads, memory_bytes, size, reasons)


def _micro_batch_size(shape: Any, seq_len: int, recipe: str, room: float) -> int:
    size = MAX_MICRO_BATCH_SIZE
    while size and memory(shape, Layout(micro_batch_size=size), seq_len=seq_len, recipe=recipe).total > room:
        size //= 2
    return size


def _precision(device: str, gpu: Gpu | None) -> tuple[str, str]:
    capability = gpu.compute_capability if gpu is not None else None
    if device == "mps":
        return "fp32", "the safe one on Apple's GPU; measure fp16 autocast for your model"
    if device == "cpu":
        return "fp32", "16 bits are slower on most CPUs: measure before you use them"
    if capability is None or capability >= (8, 0):
        return "bf16", "native since Ampere (2020), and needs no loss scaling"
    if capability >= (7, 0):
        return "fp16", "this card has fast fp16 and no fast bf16; scale the loss"
    return "fp32", "no tensor cores before 2017: 16 bits save memory and little time"
