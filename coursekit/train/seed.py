"""Seeds and random states: the same numbers twice, and different numbers where ranks must differ."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch

from coursekit.errors import InputError, check_whole


def seed_everything(seed: int, *, deterministic: bool = False) -> torch.Generator:
    """Seed Python, NumPy (if loaded) and torch on every device; return a new CPU generator of that seed.

    Give the generator to what shuffles (`DataLoader(generator=...)`), so that drawing one number more in
    the model doesn't reorder the data.

    Args:
        seed: 0 to 2**32 - 1 (NumPy takes no more).
        deterministic: also make torch refuse operations that have no deterministic form. On CUDA, set the
            environment variable CUBLAS_WORKSPACE_CONFIG=:4096:8 before the process starts.
    Raises: InputError if the seed is no whole number, or out of range.

    >>> generator = seed_everything(0)
    >>> first = torch.rand(2), random.random()
    >>> _ = seed_everything(0)
    >>> torch.equal(torch.rand(2), first[0]), random.random() == first[1]
    (True, True)
    """
    check_whole("the seed is out of range", least=0, seed=seed)
    if not seed < 2**32:
        raise InputError("the seed is out of range", expected="0 <= seed < 2**32", got=seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True)
    return torch.Generator().manual_seed(seed)


def derive_seed(seed: int, *labels: object) -> int:
    """Return a seed of its own for each combination of labels, from 0 to 2**32 - 1.

    `seed + rank` collides with the next run's seed (seed 1, rank 0 is seed 0, rank 1); a hash does not.
    The same labels give the same seed in every process and version of Python.

    >>> derive_seed(0, "dropout", 1) == derive_seed(0, "dropout", 1)
    True
    >>> len({derive_seed(seed, "rank", rank) for seed in range(10) for rank in range(10)})
    100
    """
    text = "\x1f".join([str(seed), *(f"{type(label).__name__}:{label}" for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def get_rng_state() -> dict[str, Any]:
    """Return the states of all random generators: Python, NumPy, torch's CPU and accelerators.

    Accelerators that have not been used yet are left out, since asking would start them.
    """
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put all random generators back to what `get_rng_state` returned."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        sys.modules["numpy"].random.set_state(state["numpy"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def preserve_rng(seed: int | None = None) -> Iterator[None]:
    """Leave every random state after the block as it was before it, also if the block raises.

    Args:
        seed: if given, the block itself starts from this seed.

    >>> _ = seed_everything(0)
    >>> with preserve_rng(1):
    ...     _ = torch.rand(3)
    >>> torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(0))
    tensor([True])
    """
    state = get_rng_state()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        set_rng_state(state)
