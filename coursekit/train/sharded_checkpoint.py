"""Checkpoints of a run on several ranks: each writes its shards, and any other layout reads them."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from coursekit.errors import CoursekitError, InputError

from .checkpoint import ResumePoint
from .checkpoint_files import (
    CheckpointError,
    check_keep_last,
    commit,
    find_damage,
    list_checkpoints,
    open_staging,
    sync_and_hash,
    unwritten,
)
from .checkpoint_state import Stateful, check_plain, get_states, pack_rng_state, set_states, unpack_rng_state
from .seed import derive_seed, seed_everything
from .sharded_reader import PlainReader, PlainValues

COMMON_FILE = "common.pt"

T = TypeVar("T")


def save_sharded(
    folder: str | os.PathLike,
    step: int,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    keep_last: int = 3,
    extra: dict[str, Any] | None = None,
    **parts: Stateful | None,
) -> Path:
    """Write the checkpoint of `step` from all ranks into `folder` and return its path, as `save_checkpoint`
    does from one.

    Every rank calls it, each writes the shards that it holds (a replica is written once), then rank 0 renames
    the folder: a rank killed at any moment leaves the checkpoint before it untouched. Parameters
    and optimizer state are stored by their names in the model, not by rank, so `load_sharded` puts
    them into any other layout: other numbers of ranks, FSDP2, HSDP, DDP, one process.

    Args:
        folder: on a disk that all ranks see.
        step: optimizer steps done.
        model: bare, in DDP, or sharded by `fully_shard` or other `DTensor` layouts.
        optimizer: of this model.
        keep_last: how many checkpoints to keep, at least 1.
        extra: further plain values; rank 0's are kept.
        parts: what else has a state that is the same on all ranks, such as `schedule=` and `data=`; rank 0's
            is kept. Random states are kept for each rank.

    Raises:
        InputError: as `save_checkpoint` does.
        CheckpointError: on every rank, if one could not write.
    """
    check_keep_last(keep_last)
    try:
        return _save(Path(folder), step, keep_last, lambda: _collect(model, optimizer, parts, extra or {}))
    except CheckpointError as error:
        raise unwritten(folder, error) from error


def load_sharded(
    folder: str | os.PathLike, *, model: nn.Module, optimizer: Optimizer, **parts: Stateful | None
) -> ResumePoint:
    """Give model, optimizer, parts and random generators the state of the newest whole checkpoint in
    `folder`, on every rank and in the layout that they have here.

    Damaged checkpoints are named in a warning by rank 0 and passed over, as in `load_latest`; ranks share
    the work of checking, and agree. The number of ranks may differ from the one that saved, and one process
    without a process group will do. Random states belong to ranks: a rank that did not exist before gets a
    seed of its own, and a run with dropout goes on correctly, but not as it would have before.

    Args:
        folder: where `save_sharded` writes.
        model: of the same parameter names and shapes, in any layout. Shard it before making the optimizer.
        optimizer: of the same class and groups; its gradients are dropped.
        parts: the same names as in the save.

    Returns: the step to go on from (0 if the folder has no checkpoint) and the `extra` that was saved.

    Raises:
        InputError: the parts are not those that were saved, or it is no sharded checkpoint.
        CheckpointError: all are damaged, or the model is another.
    """
    tried = []
    for path in reversed(_gather(list_checkpoints(folder))[0]):
        damage = _gather(find_damage(path, rank=_rank(), world_size=_world_size()))
        if not any(damage):
            return _agree(lambda path=path: _load(path, model, optimizer, parts))
        tried.append(f"{path} is damaged: {next(filter(None, damage))}")
        if _rank() == 0:
            warnings.warn(f"{tried[-1]}; trying the one before it", stacklevel=2)
    if tried:
        raise CheckpointError("no checkpoint can be used:\n" + "\n".join(tried))
    return ResumePoint()


def _save(
    folder: Path, step: int, keep_last: int, collect: Callable[[], tuple[dict[str, Any], dict[str, Any]]]
) -> Path:
    staging = _on_rank_0(lambda: open_staging(folder, step))
    try:
        state, common = _agree(collect)
        common |= {"step": step, "world_size": _world_size()}
        _agree(lambda: _save_shards(state, staging))
        checksums = _agree(lambda: _save_own_files(common, staging))
        together = {name: digest for files in _gather(checksums) for name, digest in files.items()}
        return _on_rank_0(lambda: commit(staging, step, keep_last=keep_last, checksums=together))
    except BaseException:
        if _rank() == 0:
            shutil.rmtree(staging, ignore_errors=True)
        raise


def _collect(
    model: nn.Module, optimizer: Optimizer, parts: dict[str, Stateful | None], extra: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (what is sharded, what is the same on all ranks), and leave the optimizer as it was."""
    check_plain(extra, "extra")
    parameters = _parameters(model, optimizer)
    common = {"extra": extra, "parts": get_states(parts), "optimizer_is_new": not optimizer.state}
    # In an optimizer without state, get_state_dict takes a step with zero gradients to make some: Adam would
    # count it, and a run that is saved before its first step would differ from one that is not.
    gradients = [parameter.grad for parameter in parameters]
    try:
        if common["optimizer_is_new"]:
            optimizer.zero_grad(set_to_none=True)
        model_state, optimizer_state = get_state_dict(model, optimizer)
    finally:
        if common["optimizer_is_new"]:
            optimizer.state.clear()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
    return {"model": model_state, "optimizer": optimizer_state}, common


def _parameters(model: nn.Module, optimizer: Optimizer) -> list[Tensor]:
    """Return the optimizer's parameters; raise InputError if they are not the model's."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = set(map(id, model.parameters()))
    if strange := [tuple(parameter.shape) for parameter in parameters if id(parameter) not in known]:
        raise InputError(
            "the optimizer holds parameters that the model does not",
            got=f"{len(strange)} of shapes {strange[:3]}",
            fix="make the optimizer after the model has been wrapped, sharded or moved",
        )
    return parameters


def _save_shards(state: dict[str, Any], staging: Path) -> None:
    with _one_process_is_fine():
        dcp.save(state, storage_writer=dcp.FileSystemWriter(staging), no_dist=not _is_distributed())


def _save_own_files(common: dict[str, Any], staging: Path) -> dict[str, str]:
    """Write what this rank keeps besides its shards; return the checksums of all files that it wrote."""
    rank = _rank()
    torch.save(pack_rng_state(), staging / _rng_file(rank))
    own = [staging / _rng_file(rank), *staging.glob(f"__{rank}_*")]
    if rank == 0:
        torch.save(common, staging / COMMON_FILE)
        own += [staging / COMMON_FILE, staging / ".metadata"]
    return {path.name: sync_and_hash(path) for path in own}


def _load(path: Path, model: nn.Module, optimizer: Optimizer, parts: dict[str, Any]) -> ResumePoint:
    if not (path / COMMON_FILE).exists():
        raise InputError("not a sharded checkpoint", got=path, fix="use load_latest")
    common = torch.load(path / COMMON_FILE, map_location="cpu", weights_only=True)
    _parameters(model, optimizer)
    optimizer.zero_grad(set_to_none=True)  # with gradients there, get_state_dict makes no state to load into
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    with _one_process_is_fine():
        dcp.load(
            state, storage_reader=PlainReader(path), planner=PlainValues(), no_dist=not _is_distributed()
        )
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    if common["optimizer_is_new"]:
        optimizer.state.clear()
    set_states(parts, common["parts"])
    _restore_rng(path, common["world_size"])
    return ResumePoint(common["step"], path, common["extra"])


def _restore_rng(path: Path, saved_world_size: int) -> None:
    """Take this rank's random state; a rank that is new gets a seed that no other has."""
    own = _rank() if _rank() < saved_world_size else 0
    state = torch.load(path / _rng_file(own), map_location="cpu", weights_only=True)
    if own == _rank():
        unpack_rng_state(state)
    else:
        seed_everything(derive_seed(0, state["torch"].tolist(), "rank", _rank()))


def _rng_file(rank: int) -> str:
    return f"rng_{rank}.pt"


def _on_rank_0(action: Callable[[], T]) -> T:
    """Return on every rank what `action` returned on rank 0."""
    return _gather(_agree(lambda: action() if _rank() == 0 else None))[0]


def _agree(action: Callable[[], T]) -> T:
    """Return what `action` returned on this rank; if it raised on any, raise on all.

    A rank that failed alone would leave the others waiting for it in the next collective.
    """
    failure: BaseException | None = None
    value = None
    try:
        value = action()
    except (Exception, CheckpointException) as error:  # torch derives the latter from BaseException
        failure = error
    told = _gather(failure and _describe(failure))
    if isinstance(failure, CoursekitError):
        raise failure
    if any(told):
        raise CheckpointError(next(filter(None, told))) from failure
    return value


def _describe(failure: BaseException) -> str:
    rank, root = _rank(), failure
    if isinstance(failure, CheckpointException):  # torch has gathered failures already, with their tracebacks
        rank, (root, _) = min(failure.failures.items())
    return f"on rank {rank}, {type(root).__name__}: {root}"


def _gather(value: T) -> list[T]:
    """Return the small value of each rank, on every rank."""
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _rank() -> int:
    return dist.get_rank() if _is_distributed() else 0


def _world_size() -> int:
    return dist.get_world_size() if _is_distributed() else 1


@contextlib.contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
