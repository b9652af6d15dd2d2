"""A position in shuffled data that survives restarts, workers that read ahead, other numbers of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from coursekit.errors import InputError, check_whole

from .seed import derive_seed


class ResumableSampler(Sampler[int]):
    """Yields what is left of the current epoch's samples, in an order that depends on seed and epoch alone.

    The position counts samples that the training loop has *consumed*. A DataLoader asks its sampler for many
    more, ahead of time, for its workers; a sampler that counted what it handed out would skip those
    at a restart. So the loop reads its batches through `consume`:

        sampler = ResumableSampler(len(dataset), seed=0)
        loader = DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=2)
        load_latest(folder, model=model, optimizer=optimizer, data=sampler)
        for epoch in range(sampler.epoch, num_epochs):
            for batch in sampler.consume(loader):
                ...

    Under data parallelism each rank takes every `dp_size`-th sample. The position counts those of all ranks,
    and can be loaded by another number of them.

    Args:
        num_samples: length of the dataset, at least `dp_size`.
        seed: of the order. The permutation is torch's own and may change between its versions.
        shuffle: False for the dataset's own order.
        dp_rank: this rank, from 0.
        dp_size: number of ranks. Each gets equally many samples: up to `dp_size` - 1 of an epoch's last are
            left out.

    >>> list(ResumableSampler(5, seed=0, shuffle=False, dp_rank=1, dp_size=2))
    [1, 3]
    """

    def __init__(
        self, num_samples: int, *, seed: int, shuffle: bool = True, dp_rank: int = 0, dp_size: int = 1
    ) -> None:
        check_whole("no samples", num_samples=num_samples, dp_size=dp_size)
        check_whole("no such rank", least=0, dp_rank=dp_rank)
        if not dp_rank < dp_size <= num_samples:
            raise InputError(
                "no samples for such a rank",
                expected="0 <= dp_rank < dp_size <= num_samples",
                got=f"num_samples {num_samples}, dp_rank {dp_rank}, dp_size {dp_size}",
            )
        self.num_samples, self.seed, self.shuffle = num_samples, seed, shuffle
        self.dp_rank, self.dp_size = dp_rank, dp_size
        self.epoch, self.position = 0, 0

    def __iter__(self) -> Iterator[int]:
        end = self.position + len(self) * self.dp_size
        return iter(self._order()[self.position + self.dp_rank : end : self.dp_size])

    def __len__(self) -> int:
        """Return how many samples of this epoch are left for this rank."""
        return (self.num_samples - self.position) // self.dp_size

    def consume(self, loader: DataLoader) -> Iterator[Any]:
        """Yield the batches left in this epoch, each counted as it is handed out; then begin the next epoch.

        A state saved in the body of the loop includes the batch at hand. Leaving the loop early keeps the
        position, and the next `consume` goes on from it. What reads ahead goes inside, `consume` outside.

        Starting the loader draws no random number from the global generators, unlike `iter(loader)`: a run
        that resumes amid an epoch starts its loader once more than one that does not, and would otherwise
        drop out other neurons. Random augmentation in *workers* starts anew at a restart; draw it from
        a generator seeded by `derive_seed(seed, epoch, index)` to have it repeat.

        Args:
            loader: with this sampler and a `batch_size`.
        Raises: InputError if the loader has another sampler, makes its batches otherwise, or reads a dataset
            of another length.
        """
        if loader.sampler is not self or loader.batch_size is None:
            raise InputError(
                "the position counts another loader's samples",
                expected="DataLoader(..., batch_size=n, sampler=this)",
                got=f"batch_size {loader.batch_size}, sampler {type(loader.sampler).__name__}",
            )
        length = len(loader.dataset) if hasattr(loader.dataset, "__len__") else self.num_samples
        if length != self.num_samples:  # of a longer one the rest would never be seen
            expected = f"{self.num_samples} samples, as the sampler was told"
            raise InputError("the loader's dataset has another length", expected=expected, got=length)
        return self._consume(loader)

    def _consume(self, loader: DataLoader) -> Iterator[Any]:
        state = torch.get_rng_state()
        batches = iter(loader)
        torch.set_rng_state(state)
        for batch in batches:
            self.position += min(loader.batch_size, len(self)) * self.dp_size
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what the order depends on."""
        return {
            "num_samples": self.num_samples,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "epoch": self.epoch,
            "position": self.position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of `state_dict`.

        Raises: InputError if it counts in another order than this sampler's.
        """
        own = self.state_dict()
        if different := [name for name in ("num_samples", "seed", "shuffle") if state[name] != own[name]]:
            raise InputError(
                "the saved position is in another order of samples",
                expected=", ".join(f"{name} {state[name]}" for name in different),
                got=", ".join(f"{name} {own[name]}" for name in different),
                fix="resume with the same data and seed, or begin a new run in another folder",
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_samples))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", self.epoch))
        return torch.randperm(self.num_samples, generator=generator).tolist()
