"""Run a function on several processes of this machine, from a notebook or a script."""

from __future__ import annotations

import functools
import importlib.machinery
import io
import linecache
import os
import pickle
import socket
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

from coursekit.errors import InputError

from ._failures import RankError, RankFailure, RankTimeoutError
from ._job import Job
from ._rank import IN_LAUNCH, Payload, process_group
from ._serve import MAX_WORLD_SIZE
from ._template import current_template

__all__ = ["RankError", "RankFailure", "RankTimeoutError", "launch"]

# cloudpickle has one list, for all threads, of the modules that are to be copied.
_by_value_lock = threading.RLock()


def launch(
    function: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout_seconds: float | None = None,
    backend: str = "gloo",
    echo: bool = True,
    **kwargs: Any,
) -> list[Any]:
    """Return `[function(*args, **kwargs) on rank 0, on rank 1, ...]`, run by `world_size` processes with a
    process group.

    Each rank is a process forked from a template that has imported torch, so the first call of a session
    takes seconds and the later ones tenths of a second. The function may be defined in a notebook; it
    learns its rank from `torch.distributed.get_rank()`. What ranks print appears at once, by whole lines,
    as `[rank 0] ...`. However the call ends, no process is left behind. Exit handlers (`atexit`) do not run
    in ranks. Results and arguments are copies, made by cloudpickle.

    Under `torchrun` (`RANK`, `WORLD_SIZE` and `MASTER_ADDR` are set) nothing is started: the function runs
    on this rank, in this process, with torchrun's world size, and every rank gets the list of all results.

    Args:
        function: what each rank runs.
        world_size: number of processes, 1 to 64.
        *args: positional arguments of `function`.
        timeout_seconds: how long the ranks may run, above 0; None is without limit.
        backend: of `torch.distributed.init_process_group`; with "nccl" rank r uses GPU r.
        echo: whether to show what the ranks print.
        **kwargs: named arguments of `function`.

    Raises:
        RankError: a rank raised, was killed or ended; names the one that failed first.
        RankTimeoutError: the time was up; says where each rank stood.
        InputError: for a wrong world size or time limit, or a call from within a rank.
    """
    _check(function, world_size)
    if timeout_seconds is not None and not 0 < timeout_seconds < float("inf"):
        expected = "a finite timeout_seconds > 0, or None"
        raise InputError("no time to run in", expected=expected, got=timeout_seconds)
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return _run_here(functools.partial(function, *args, **kwargs), world_size, backend, timeout_seconds)
    template = current_template()  # imports torch while this process does
    store = _local_store()
    try:
        payload = _payload(function, args, kwargs, world_size, store.port, backend, timeout_seconds)
        with tempfile.TemporaryFile() as file:
            pickle.dump(payload, file)
            file.flush()
            with Job(template, world_size, file.fileno(), show=_show if echo else None) as job:
                return _collect(job, timeout_seconds)
    finally:
        del store  # whoever keeps an error keeps this frame, and would keep the store's port open


def prepare_launch(*, fork: bool = False) -> None:
    """Start, in the background, the process that ranks are forked from: the first `launch` need not wait.

    Args:
        fork: make it by a fork of this process, for a sandbox where no new program can be started. Call it
            before torch has computed anything here; a fork after OpenMP has worked hangs.
    """
    current_template(fork=fork)


def _check(function: Callable[..., Any], world_size: int) -> None:
    if not callable(function):
        raise InputError("nothing to run on the ranks", expected="a function", got=type(function).__name__)
    if (
        isinstance(world_size, bool)
        or not isinstance(world_size, int)
        or not 1 <= world_size <= MAX_WORLD_SIZE
    ):
        raise InputError(
            "wrong world_size", expected=f"a whole number from 1 to {MAX_WORLD_SIZE}", got=repr(world_size)
        )
    if IN_LAUNCH in os.environ:
        raise InputError(
            "launch was called by a rank of another launch",
            fix="start all processes in one launch, and divide them with torch.distributed.new_group",
        )


def _collect(job: Job, timeout_seconds: float | None) -> list[Any]:
    """Wait for the ranks and return their results, or raise what they failed of."""
    try:
        in_time = job.wait(timeout_seconds)
    except KeyboardInterrupt:
        job.ask_where()  # whoever interrupts a job that hangs wants to know
        job.stop()
        _show(_where(job) or "interrupted when no rank was running")
        raise
    if not in_time:
        job.ask_where()
    job.stop()
    failures = [failure for rank in job.ranks if (failure := rank.failure(pickle.loads)) is not None]
    if not in_time and all(failure.stopped for failure in failures):
        raise RankTimeoutError(failures, len(job.ranks), timeout_seconds)
    if failures:
        raise RankError(failures, len(job.ranks))
    return [pickle.loads(memoryview(rank.result)[2:]) for rank in job.ranks]


def _where(job: Job) -> str:
    stopped = [failure for rank in job.ranks if rank.stopped and (failure := rank.failure(pickle.loads))]
    return "\n".join(f"rank {failure.rank} was interrupted here:\n{failure.traceback}" for failure in stopped)


def _local_store() -> Any:
    """Return a store for the ranks to find each other, that listens to this machine only, on a free port."""
    import torch.distributed as dist

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return dist.TCPStore(
        "127.0.0.1", port, None, True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


def _payload(
    function: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    world_size: int,
    port: int,
    backend: str,
    timeout_seconds: float | None,
) -> Payload:
    """Return what every rank needs to know, the function by value where a rank could not import it."""
    return Payload(
        function=_dump(function, (function, args, kwargs)),
        environ=dict(os.environ),
        directory=os.getcwd(),
        sys_path=list(sys.path),
        argv=list(sys.argv),
        sources=_notebook_sources(),
        world_size=world_size,
        port=port,
        num_threads=max(1, _num_cpus() // world_size),
        backend=backend,
        timeout_seconds=timeout_seconds,
    )


def _dump(function: Callable[..., Any], value: object) -> bytes:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            # torch.distributed.config is of a class of its own, which cloudpickle takes for data. It meets it
            # in any function that says `dist` and, of whatever object, `.config`.
            if isinstance(obj, types.ModuleType) and sys.modules.get(obj.__name__) is obj:
                if type(obj) is not types.ModuleType:
                    return importlib.import_module, (obj.__name__,)
            # torch._C._functions cannot be imported, so cloudpickle would copy its classes. It meets it in
            # what torch.autograd.function.once_differentiable makes of a backward pass.
            if isinstance(obj, types.ModuleType) and obj.__name__ not in sys.modules:
                parent, _, name = obj.__name__.rpartition(".")
                if getattr(sys.modules.get(parent), name, None) is obj:
                    return getattr, (sys.modules[parent], name)
            return super().reducer_override(obj)

    def dumps(value: object) -> bytes:
        with io.BytesIO() as file:
            Pickler(file).dump(value)
            return file.getvalue()

    module = sys.modules.get(getattr(function, "__module__", None) or "")
    by_value = (
        isinstance(module, types.ModuleType) and module.__name__ != "__main__" and not _importable(module)
    )
    if not by_value:
        return dumps(value)
    with _by_value_lock:
        if module.__name__ in cloudpickle.list_registry_pickle_by_value():
            return dumps(value)  # its author put it there, and there it stays
        cloudpickle.register_pickle_by_value(module)
        try:
            return dumps(value)
        finally:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: types.ModuleType) -> bool:
    """Whether a rank, with the same sys.path, would import this very module."""
    if getattr(module, "__file__", None) is None:
        return True
    path, name = None, ""
    for part in module.__name__.split("."):
        name = f"{name}.{part}" if name else part
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return name in sys.builtin_module_names or _has_own_finder(name)
        path = spec.submodule_search_locations
    return spec.origin == module.__file__


def _has_own_finder(name: str) -> bool:
    """Whether the import hook of an editable install, which a rank has too, finds the module."""
    for finder in sys.meta_path:
        if "editable" in getattr(
            finder, "__module__", getattr(type(finder), "__module__", "")
        ) and finder.find_spec(name, None):
            return True
    return False


def _notebook_sources() -> dict[str, list[str]]:
    """Return the lines of code that no file holds, such as cells, for the tracebacks of ranks to quote."""
    return {
        name: entry[2]
        for name, entry in list(linecache.cache.items())
        if len(entry) == 4 and entry[1] is None and not os.path.exists(name)
    }


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _show(line: str) -> None:
    print(line, flush=True)


def _run_here(
    function: Callable[[], Any], world_size: int, backend: str, timeout_seconds: float | None
) -> list[Any]:
    """Run `function` as the rank that torchrun made of this process; return every rank's result."""
    import contextlib

    import torch.distributed as dist

    started = int(os.environ["WORLD_SIZE"])
    if started != world_size and os.environ["RANK"] == "0":
        warnings.warn(f"torchrun started {started} ranks; world_size={world_size} is ignored", stacklevel=3)
    ready = dist.is_initialized()
    group = contextlib.nullcontext() if ready else process_group(backend, timeout_seconds=timeout_seconds)
    with group:
        results: list[Any] = [None] * started
        dist.all_gather_object(results, function())
    return results
