"""What training small models asks of a computer, beside what a machine has."""

from __future__ import annotations

from dataclasses import dataclass

from coursekit.units import GB

from .gpus import Gpu, TorchBuild, runs_on
from .hardware import Machine

MIN_PROCESSORS, BETTER_PROCESSORS = 2, 4
MIN_MEMORY, BETTER_MEMORY = 8 * GB, 16 * GB
MIN_GPU_MEMORY = 4 * GB
PYTHONS = (3, 11), (3, 13)
MIN_TORCH, TESTED_TORCH = (2, 9), (2, 13)
MIN_TENSORFLOW, TESTED_TENSORFLOW = (2, 18), (2, 21)
# torch's builds for CUDA 13 (pip's default since 2.11) begin at Turing; those for CUDA 12.6 at Maxwell.
# Source: the support matrix of https://github.com/pytorch/pytorch/blob/main/RELEASE.md for 2.12 to 2.14.
CUDA_13_CAPABILITY, CUDA_12_6_CAPABILITY = (7, 5), (5, 0)
# Source: https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (minor version compatibility, Linux).
MIN_DRIVER = {12: 525, 13: 580}


@dataclass(frozen=True)
class Check:
    """One thing that training asks for, and whether a machine has it.

    Attributes:
        topic: as "memory".
        minimum: what is needed at least, in words.
        recommended: what is better.
        found: what the machine has.
        verdict: "ok" (as recommended), "enough" (at least the minimum) or "short".
        mend: what to do about it; "" where nothing is to be done.
    """

    topic: str
    minimum: str
    recommended: str
    found: str
    verdict: str
    mend: str = ""


def check_machine(machine: Machine) -> list[Check]:
    """Return what a machine has beside what the course asks for, a row each.

    The numbers for memory (8 GB, better 16), GPU (none; if any, 4 GB) and disk (SSD) are those of the
    document that the course follows (curriculum topic A28); those for software are what this course is
    tested with. Sizes are decimal, as on a shop's label: a machine sold with 8 GB keeps some for itself.
    """
    return [
        _processors(machine),
        _memory(machine),
        _gpu(machine),
        _disk(machine),
        _system(machine),
        _python(machine),
        _torch(machine.torch),
        _tensorflow(machine.tensorflow),
        _cuda(machine.gpus, machine.torch),
    ]


def _processors(machine: Machine) -> Check:
    usable, whole = machine.usable_processors, machine.processors
    mend = ""
    if usable < BETTER_PROCESSORS:
        mend = "processes that this course starts will take turns"
        if usable < whole:
            mend = f"this process may use {usable:g} of {whole}; raise the limit (docker run --cpus={whole})"
    return Check(
        "processors",
        f"{MIN_PROCESSORS}",
        f"{BETTER_PROCESSORS} or more (any Core i5 or Ryzen 5)",
        f"{usable:g}" + (f" of {whole}" if usable < whole else "") + f", {machine.processor}",
        _verdict(usable, MIN_PROCESSORS, BETTER_PROCESSORS),
        mend,
    )


def _memory(machine: Machine) -> Check:
    usable, whole = machine.usable_memory_bytes, machine.memory_bytes
    mend = ""
    if usable < BETTER_MEMORY <= whole:
        mend = f"the machine has {_gb(whole)}; raise the limit (docker run --memory=, ulimit -v)"
    elif usable < MIN_MEMORY:
        mend = "close other programs, and run one page or exercise at a time"
    elif machine.available_memory_bytes < 2 * GB:
        mend = "little is free now: close other programs before you start"
    part = f" of {_gb(whole)}" if usable < whole else ""
    return Check(
        "memory",
        _gb(MIN_MEMORY),
        _gb(BETTER_MEMORY),
        f"{_gb(usable)}{part}, {_gb(machine.available_memory_bytes)} free",
        _verdict(usable, MIN_MEMORY, BETTER_MEMORY),
        mend,
    )


def _gpu(machine: Machine) -> Check:
    asked = "none", f"{_gb(MIN_GPU_MEMORY)}, NVIDIA from compute capability 7.5, or Apple silicon"
    if not machine.gpus:
        if machine.torch is not None and machine.torch.device == "mps":
            return Check("GPU", *asked, "Apple silicon (MPS)", "ok")
        nothing = "nothing to mend: every page and exercise runs without"
        return Check("GPU", *asked, "no NVIDIA GPU seen", "enough", nothing)
    best = best_gpu(machine.gpus)
    found = f"{len(machine.gpus)} x " * (len(machine.gpus) > 1) + f"{best.name}, {_gb(best.memory_bytes)}"
    if best.compute_capability is not None:
        found += ", capability {}.{}".format(*best.compute_capability)
        if best.compute_capability < CUDA_12_6_CAPABILITY:
            return Check("GPU", *asked, found, "enough", "too old for any current torch: train on the CPU")
        if best.compute_capability < CUDA_13_CAPABILITY:
            mend = "too old for CUDA 13, torch's default: make env TORCH=cu126, up to torch 2.14"
            return Check("GPU", *asked, found, "enough", mend)
    if best.memory_bytes < 0.9 * MIN_GPU_MEMORY:  # drivers keep some of a "4 GB" card
        return Check("GPU", *asked, found, "enough", "small: shrink the micro-batch, or train on the CPU")
    return Check("GPU", *asked, found, "ok")


def best_gpu(gpus: tuple[Gpu, ...]) -> Gpu:
    """Return the GPU of the newest architecture, and of these the one with the most memory."""
    return max(gpus, key=lambda gpu: (gpu.compute_capability or (0, 0), gpu.memory_bytes))


def _disk(machine: Machine) -> Check:
    # Measured: the whole environment with torch for the CPU takes 4 GB, with CUDA's libraries some 4 more.
    needed, better = (2 * GB, 10 * GB) if machine.torch is not None else (8 * GB, 20 * GB)
    verdict, mend = _verdict(machine.free_disk_bytes, needed, better), ""
    if verdict != "ok":
        mend = "free some space; the environment and the built book are the large parts"
    elif machine.spinning_disk:
        verdict, mend = "enough", "a hard disk: imports and data are slow; an SSD is the cheapest upgrade"
    kind = {None: "", True: ", hard disk", False: ", SSD"}[machine.spinning_disk]
    found = f"{_gb(machine.free_disk_bytes)} free{kind}"
    return Check("disk", f"{_gb(needed)} free", f"{_gb(better)} free, SSD", found, verdict, mend)


def _system(machine: Machine) -> Check:
    verdict, mend = "ok", ""
    if machine.system == "Windows":
        verdict, mend = "short", "install WSL 2 (wsl --install) and do everything in its Linux"
    elif machine.system == "macOS" and machine.architecture != "arm64":
        verdict = "short"
        mend = "torch stopped at 2.2 for Intel Macs; on Apple silicon, install the arm64 Python"
    elif machine.architecture not in ("x86_64", "arm64"):
        verdict, mend = "short", "torch has builds for x86_64 and arm64 only"
    wanted = "64-bit Linux, or macOS on Apple silicon"
    return Check(
        "system",
        wanted,
        f"{wanted}; Windows by WSL 2",
        f"{machine.release}, {machine.architecture}",
        verdict,
        mend,
    )


def _python(machine: Machine) -> Check:
    low, high = (_dotted(version) for version in PYTHONS)
    inside = PYTHONS[0] <= _numbers(machine.python) <= PYTHONS[1]
    mend = "" if inside else f"make the environment with Python {low} to {high}"
    return Check("Python", low, f"{low} to {high}", machine.python, "ok" if inside else "short", mend)


def _torch(build: TorchBuild | None) -> Check:
    asked = _dotted(MIN_TORCH), _dotted(TESTED_TORCH)
    if build is None:
        return Check("torch", *asked, "not installed", "short", "make env, or pip install torch")
    verdict = _verdict(_numbers(build.version), MIN_TORCH, TESTED_TORCH)
    mend = {"ok": "", "enough": "tested with a newer one: make env", "short": "too old: make env"}[verdict]
    return Check("torch", *asked, build.version, verdict, mend)


def _tensorflow(version: str | None) -> Check:
    asked = f"none, or {_dotted(MIN_TENSORFLOW)}", _dotted(TESTED_TENSORFLOW)
    if version is None:
        mend = "only its chapter and tabs need it: pip install 'coursekit[tf]'"
        return Check("TensorFlow", *asked, "not installed", "enough", mend)
    verdict = _verdict(_numbers(version), MIN_TENSORFLOW, TESTED_TENSORFLOW)
    mend = "" if verdict == "ok" else "tested with a newer one: pip install -U 'coursekit[tf]'"
    return Check("TensorFlow", *asked, version, verdict, mend)


def _cuda(gpus: tuple[Gpu, ...], build: TorchBuild | None) -> Check:
    asked = "none", "an NVIDIA driver, and a torch built for its CUDA and your card"
    if not gpus:
        return Check("CUDA", *asked, "no NVIDIA GPU that it could serve", "ok")
    gpu = best_gpu(gpus)
    cuda = build.cuda if build is not None else None
    found = f"driver {gpu.driver or 'unknown'}, torch " + (f"for CUDA {cuda}" if cuda else "without CUDA")
    mend = _mend_cuda(gpu, build)
    return Check("CUDA", *asked, found, "enough" if mend else "ok", mend)


def _mend_cuda(gpu: Gpu, build: TorchBuild | None) -> str:
    """Return what keeps torch from the card, with what to do; "" if nothing does."""
    if build is None or build.cuda is None:
        return "the GPU lies idle: make env (with another TORCH=) for a build with CUDA"
    if gpu.compute_capability is not None and not runs_on(gpu.compute_capability, build.arches):
        card = "{}.{}".format(*gpu.compute_capability)
        return (
            f"this torch has no kernels for capability {card}: make env TORCH=cu126 has those of older cards"
        )
    needed = MIN_DRIVER.get(int(build.cuda.split(".")[0]), 0)
    if gpu.driver and gpu.driver.split(".")[0].isdigit() and int(gpu.driver.split(".")[0]) < needed:
        return f"CUDA {build.cuda} needs driver {needed} or newer: update it, or make env TORCH=cu126"
    if build.device != "cuda":
        return "driver and build fit, yet torch sees no GPU: CUDA_VISIBLE_DEVICES, or docker run --gpus all?"
    return ""


def _verdict(value, minimum, better) -> str:
    return "ok" if value >= better else "enough" if value >= minimum else "short"


def _gb(num_bytes: float) -> str:
    size = num_bytes / GB
    return f"{size:.0f} GB" if size >= 10 or size == round(size) else f"{size:.1f} GB"


def _numbers(version: str) -> tuple[int, int]:
    """Return (major, minor) of a version such as "2.13.0+cu126"."""
    major, minor = [*version.split("."), "0"][:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
