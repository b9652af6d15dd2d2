"""The one question that everything on several processes asks first."""

from __future__ import annotations

import torch.distributed as dist

from coursekit.errors import InputError


def require_process_group(group: dist.ProcessGroup | None = None) -> None:
    """Raise an InputError that says where a process group comes from, unless there is one with this rank.

    Args:
        group: the one that will be used; None is that of all ranks. To a rank outside of it torch says that
            it has -1 ranks, and its collectives return at once: a mean over ranks would be its own, times -1.
    """
    if not dist.is_initialized():
        raise InputError(
            "there is no process group",
            fix="call this in a function run by coursekit.parallel.launch, or start the script with torchrun",
        )
    if group is not None and dist.get_rank(group) < 0:
        raise InputError(
            "this rank is not in the group",
            expected="a group with this rank in it",
            got=f"rank {dist.get_rank()}",
            fix="call it on the ranks of the group alone; mesh[axis].get_group() is this rank's own",
        )
