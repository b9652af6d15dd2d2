"""The one question that everything on several processes asks first."""

from __future__ import annotations

import torch.distributed as dist

from coursekit.errors import InputError


def require_process_group() -> None:
    """Raise an InputError that says where a process group comes from, unless there is one."""
    if not dist.is_initialized():
        raise InputError(
            "there is no process group",
            fix="call this in a function run by coursekit.parallel.launch, or start the script with torchrun",
        )
