"""What ranks do together: gather small values, and fail together where one fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from coursekit.errors import CoursekitError

from .checkpoint_files import CheckpointError

T = TypeVar("T")


def on_rank_0(action: Callable[[], T]) -> T:
    """Return on every rank what `action` returned on rank 0."""
    return gather(agree(lambda: action() if this_rank() == 0 else None))[0]


def agree(action: Callable[[], T]) -> T:
    """Return what `action` returned on this rank; if it raised on any, raise on all.

    A rank that failed alone would leave the others waiting for it in the next collective.
    """
    failure: BaseException | None = None
    value = None
    try:
        value = action()
    except (Exception, CheckpointException) as error:  # torch derives the latter from BaseException
        failure = error
    told = gather(failure and _describe(failure))
    if isinstance(failure, CoursekitError):
        raise failure
    if any(told):
        raise CheckpointError(next(filter(None, told))) from failure
    return value


def _describe(failure: BaseException) -> str:
    rank, root = this_rank(), failure
    if isinstance(failure, CheckpointException):  # torch has gathered failures already, with their tracebacks
        rank, (root, _) = min(failure.failures.items())
    return f"on rank {rank}, {type(root).__name__}: {root}"


def gather(value: T) -> list[T]:
    """Return the small value of each rank, on every rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def is_distributed() -> bool:
    """Return whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def this_rank() -> int:
    """Return this process's rank, 0 if there is no process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of ranks, 1 if there is no process group."""
    return dist.get_world_size() if is_distributed() else 1
