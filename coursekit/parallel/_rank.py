"""One rank of a job: what happens between the fork and the end of the process."""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import linecache
import mmap
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from coursekit.errors import InputError

IN_LAUNCH = "COURSEKIT_LAUNCH"  # set in every rank and, by inheritance, in what a rank starts


@dataclass(frozen=True)
class Payload:
    """What every rank of a job is given: where it works, with whom, and on what."""

    function: bytes  # (function, args, kwargs), pickled by cloudpickle
    environ: dict[str, str]
    directory: str
    sys_path: list[str]
    argv: list[str]
    sources: dict[str, list[str]]  # lines of notebook cells by file name, for tracebacks
    world_size: int
    port: int
    num_threads: int
    backend: str
    timeout_seconds: float | None


def run_rank(rank: int, payload: int, output: int, result: int, stack: int) -> int:
    """Run the job's function in this process, write its result or failure to `result`, return the exit code.

    Args:
        rank: of this process.
        payload: descriptor of a file that holds a pickled `Payload`, shared by all ranks.
        output: descriptor of a pipe, for what is printed.
        result: descriptor of a pipe, for the outcome.
        stack: descriptor of a pipe, for dumps of the stack.
    """
    _take_streams(output)
    faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # the template blocked it
    faulthandler.enable(file=stack)
    outcome = _outcome(rank, payload)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with open(result, "wb") as pipe:
        pipe.write(outcome)
    return 0 if outcome.startswith(b"ok") else 1


def _outcome(rank: int, payload: int) -> bytes:
    """Return b"ok" and the pickled value, or b"no" and the pickled description of what was raised."""
    import cloudpickle

    try:
        with mmap.mmap(payload, 0, access=mmap.ACCESS_READ) as shared:
            job: Payload = pickle.loads(shared)
        os.close(payload)
        _settle(rank, job)
        function, args, kwargs = pickle.loads(job.function)
        with process_group(job.backend, timeout_seconds=job.timeout_seconds):
            outcome = b"ok" + _pickle_value(cloudpickle.dumps, function(*args, **kwargs))
        return outcome
    except BaseException as error:
        return b"no" + pickle.dumps(_describe(error))


def _pickle_value(dumps: Callable[[Any], bytes], value: Any) -> bytes:
    try:
        return dumps(value)
    except Exception as error:
        raise TypeError(
            f"the function returned a {type(value).__name__} that cannot be sent to the launching process "
            f"({error}); return plain data, or tensors"
        ) from error


@contextlib.contextmanager
def process_group(backend: str, *, timeout_seconds: float | None) -> Iterator[None]:
    """Have a process group from the variables of the environment, and destroy it at the end.

    Not after an exception: to destroy a group whose other ranks still work can hang, and would hide it.
    """
    import torch
    import torch.distributed as dist

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = None
    if "nccl" in backend:
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                "nccl needs a GPU a rank",
                expected=f"at least {local_rank + 1}",
                got=torch.cuda.device_count(),
                fix='use backend="gloo", or fewer ranks',
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    # Later than launch's own limit, which says more: where each rank stood.
    timeout = None if timeout_seconds is None else datetime.timedelta(seconds=timeout_seconds + 60)
    dist.init_process_group(backend, timeout=timeout, device_id=device)
    yield
    if dist.is_initialized():  # the function may have destroyed it
        dist.destroy_process_group()


def _settle(rank: int, job: Payload) -> None:
    """Make this process look as if it had been started by torchrun in the launching process's place."""
    os.environ.clear()
    os.environ.update(job.environ)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        GROUP_RANK="0",
        WORLD_SIZE=str(job.world_size),
        LOCAL_WORLD_SIZE=str(job.world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(job.port),
        TORCHELASTIC_USE_AGENT_STORE="True",  # the store is the launching process's
        OMP_NUM_THREADS=str(job.num_threads),
    )
    os.environ[IN_LAUNCH] = "1"
    # A group is ready when all ranks are. Else one that sends nothing ends while others still connect to it.
    os.environ.setdefault("TORCH_DIST_INIT_BARRIER", "1")
    # One machine: without this, gloo asks the resolver for the host's name, which fails on many laptops.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    os.chdir(job.directory)
    sys.path[:] = job.sys_path
    sys.argv[:] = job.argv
    for name, lines in job.sources.items():
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    _reseed()
    import torch

    torch.set_num_threads(job.num_threads)


def _reseed() -> None:
    """Undo that forks share the template's random state; torch's default seed is fixed in any process."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _take_streams(output: int) -> None:
    """Send standard output and error, Python's and C++'s, to `output`, and read from nothing."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(
            descriptor, "w", buffering=1, closefd=False, encoding="utf-8", errors="backslashreplace"
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _describe(error: BaseException) -> dict[str, Any]:
    """Return name, message and traceback of `error` as text: not every exception can be pickled."""
    return {
        "time": time.monotonic(),  # one clock for all processes of a machine
        "type": type(error).__name__,
        "message": _message(error),
        "traceback": "".join(traceback.format_exception(type(error), error, _user_frames(error))),
    }


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be made)"


def _user_frames(error: BaseException) -> Any:
    """Return the traceback of `error` from the first frame that is not this file's."""
    frames = error.__traceback__
    while (
        frames is not None and frames.tb_frame.f_code.co_filename == __file__ and frames.tb_next is not None
    ):
        frames = frames.tb_next
    return frames
