"""Checkpoints of a run on several ranks: each writes its shards, and any other layout reads them."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.optim import Optimizer

from coursekit.errors import InputError

from .checkpoint import ResumePoint
from .checkpoint_files import (
    CheckpointError,
    check_keep_last,
    check_run_folder,
    commit,
    find_damage,
    list_checkpoints,
    open_staging,
    sync_and_hash,
    unwritten,
)
from .checkpoint_state import (
    Stateful,
    check_plain,
    check_same_parts,
    get_states,
    given_parts,
    pack_rng_state,
    set_states,
    unpack_rng_state,
)
from .optimizers import held_parameters
from .rank_agreement import agree, gather, is_distributed, on_rank_0, this_rank, world_size
from .seed import derive_seed, seed_everything
from .sharded_reader import PlainReader, PlainValues

COMMON_FILE = "common.pt"


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
        parts: further modules in any layout, such as a moving average of the weights, and what has a state
            that is the same on all ranks, such as `schedule=` and `data=`; of that rank 0's is kept.
            Random states are kept for each rank.

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
        InputError: the parts are not those that were saved, or it is no sharded checkpoint or run's folder.
        CheckpointError: all are damaged, the model is another, or ranks see other files.
    """
    tried = []
    for path in reversed(_seen_by_all(folder)):
        damage = gather(find_damage(path, rank=this_rank(), world_size=world_size()))
        if not any(damage):
            try:
                # First what a rank can refuse by itself: the others would wait for it in `_load`.
                common = agree(lambda path=path: _read_common(path, model, optimizer, parts))
                return agree(lambda path=path, common=common: _load(path, common, model, optimizer, parts))
            except CheckpointError as error:  # not passed over: half of it may be in the model
                raise CheckpointError(f"{path} cannot be loaded: {error}") from error
        tried.append(f"{path} is damaged: {next(filter(None, damage))}")
        if this_rank() == 0:
            warnings.warn(f"{tried[-1]}; trying the one before it", stacklevel=2)
    if tried:
        raise CheckpointError("no checkpoint can be used:\n" + "\n".join(tried))
    return ResumePoint()


def _seen_by_all(folder: str | os.PathLike) -> list[Path]:
    """Return the checkpoints in `folder`; raise on every rank if one sees others."""
    agree(lambda: check_run_folder(folder))
    seen = gather([path.name for path in list_checkpoints(folder)])
    # Rank 0 alone, on a disk of its own, would find nothing, and all ranks begin anew.
    if others := [rank for rank, names in enumerate(seen) if names != seen[0]]:
        raise CheckpointError(
            f"ranks 0 and {others[0]} see different checkpoints in {folder}: {seen[0][-3:]} and "
            f"{seen[others[0]][-3:]}; name the same folder on all ranks, on a disk that all of them see"
        )
    return list_checkpoints(folder)


def _save(
    folder: Path, step: int, keep_last: int, collect: Callable[[], tuple[dict[str, Any], dict[str, Any]]]
) -> Path:
    staging = on_rank_0(lambda: open_staging(folder, step))
    try:
        state, common = agree(collect)
        common |= {"step": step, "world_size": world_size()}
        agree(lambda: _save_shards(state, staging))
        checksums = agree(lambda: _save_own_files(common, staging))
        together = {name: digest for files in gather(checksums) for name, digest in files.items()}
        return on_rank_0(lambda: commit(staging, step, keep_last=keep_last, checksums=together))
    except BaseException:
        if this_rank() == 0:
            shutil.rmtree(staging, ignore_errors=True)
        raise


def _collect(
    model: nn.Module, optimizer: Optimizer, parts: dict[str, Stateful | None], extra: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (what is sharded, what is the same on all ranks), and leave the optimizer as it was."""
    check_plain(extra, "extra")
    parameters = held_parameters(optimizer, model)
    modules, others = _split(parts)
    common = {"extra": extra, "parts": get_states(others), "modules": list(modules)}
    common["optimizer_is_new"] = not optimizer.state
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
    state = {"model": model_state, "optimizer": optimizer_state}
    return state | {f"part {name}": get_model_state_dict(part) for name, part in modules.items()}, common


def _split(parts: dict[str, Stateful | None]) -> tuple[dict[str, nn.Module], dict[str, Stateful]]:
    """Return the parts that are modules, which may be sharded, and the others."""
    given = given_parts(parts)
    modules = {name: part for name, part in given.items() if isinstance(part, nn.Module)}
    return modules, {name: part for name, part in given.items() if name not in modules}


def _save_shards(state: dict[str, Any], staging: Path) -> None:
    with _one_process_is_fine():
        dcp.save(state, storage_writer=dcp.FileSystemWriter(staging), no_dist=not is_distributed())


def _save_own_files(common: dict[str, Any], staging: Path) -> dict[str, str]:
    """Write what this rank keeps besides its shards; return the checksums of all files that it wrote."""
    rank = this_rank()
    torch.save(pack_rng_state(), staging / _rng_file(rank))
    own = [staging / _rng_file(rank), *staging.glob(f"__{rank}_*")]
    if rank == 0:
        torch.save(common, staging / COMMON_FILE)
        own += [staging / COMMON_FILE, staging / ".metadata"]
    return {path.name: sync_and_hash(path) for path in own}


def _read_common(path: Path, model: nn.Module, optimizer: Optimizer, parts: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same on all ranks; raise InputError if it belongs to other parts."""
    if not (path / COMMON_FILE).exists():
        raise InputError("not a sharded checkpoint", got=path, fix="use load_latest")
    common = torch.load(path / COMMON_FILE, map_location="cpu", weights_only=True)
    check_same_parts(given_parts(parts), {*common["parts"], *common["modules"]})
    held_parameters(optimizer, model)
    return common


def _load(
    path: Path, common: dict[str, Any], model: nn.Module, optimizer: Optimizer, parts: dict[str, Any]
) -> ResumePoint:
    modules, others = _split(parts)
    optimizer.zero_grad(set_to_none=True)  # with gradients there, get_state_dict makes no state to load into
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    state |= {f"part {name}": get_model_state_dict(part) for name, part in modules.items()}
    _check_names(path, state)
    with _one_process_is_fine():
        dcp.load(state, storage_reader=PlainReader(path), planner=PlainValues(), no_dist=not is_distributed())
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    if common["optimizer_is_new"]:
        optimizer.state.clear()
    for name, module in modules.items():
        set_model_state_dict(module, state[f"part {name}"])
    set_states(others, common["parts"])
    _restore_rng(path, common["world_size"])
    return ResumePoint(common["step"], path, common["extra"])


def _check_names(path: Path, state: dict[str, Any]) -> None:
    """Raise on every rank unless the modules have the names that were saved, all ranks together.

    Weights that no module here has would be left out in silence.
    """
    saved = PlainReader(path).read_metadata().state_dict_metadata
    for part in [name for name in state if name != "optimizer"]:
        of_ranks = gather(list(state[part]))  # of a pipeline each has a share
        here = {name for names in of_ranks for name in names}
        there = {name.removeprefix(f"{part}.") for name in saved if name.startswith(f"{part}.")}
        if here != there:
            raise CheckpointError(
                f"the checkpoint is of another {part}: names in the file alone: {sorted(there - here)[:3]}, "
                f"in the {part} alone: {sorted(here - there)[:3]}"
            )


def _restore_rng(path: Path, saved_world_size: int) -> None:
    """Take this rank's random state; a rank that is new gets a seed that no other has."""
    own = this_rank() if this_rank() < saved_world_size else 0
    state = torch.load(path / _rng_file(own), map_location="cpu", weights_only=True)
    if own == this_rank():
        unpack_rng_state(state)
    else:
        seed_everything(derive_seed(0, state["torch"].tolist(), "rank", this_rank()))


def _rng_file(rank: int) -> str:
    return f"rng_{rank}.pt"


@contextlib.contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield
