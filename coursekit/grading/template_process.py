"""The template: a process that has imported what kernels need, and forks a kernel for each request.

It computes nothing with what it imports: a fork after OpenMP has worked hangs. It has one thread, and runs
no student's code. Started by `coursekit.grading.forked`; ends when its control socket does.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from coursekit.grading.sandbox import libc
from coursekit.grading.sandbox.enter import Request, become_kernel

# What an ipykernel imports by the time that it answers; read off `sys.modules` of one that did.
_KERNEL_MODULES = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.magics",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "matplotlib_inline.backend_inline",
    "tornado.platform.asyncio",
    "encodings.idna",
    "sqlite3",
    "pdb",
)
# A graded kernel keeps no history of inputs: a thread and a database fewer.
_OPTIONS = ("--HistoryManager.enabled=False",)


def serve(control: socket.socket, modules: Sequence[str]) -> NoReturn:
    """Import `modules`, then fork a kernel for each descriptor that arrives on `control`, until its end.

    A descriptor is a stream socket to the kernel's owner: a request comes in first, see `Request`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    _import_without_debugger()
    for name in modules:
        _imported(name)
    if sys.platform == "linux":
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries our children
    gc.collect()
    gc.freeze()  # a collection in a kernel would write to, and so copy, every page that it shares with us
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)
        with socket.socket(fileno=descriptors[0]) as owner:
            if os.fork() == 0:
                control.close()
                become_kernel(_read_request(owner), owner, run_kernel)


def _import_without_debugger() -> None:
    """Import what kernels need; their debugger, half of a kernel's start, finds that it is not installed."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in (*_KERNEL_MODULES, "ipykernel.debugger"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # not there in another version: then the kernel does not need it, or imports it itself
    del sys.modules["debugpy"]


def _imported(name: str) -> Callable[..., object] | None:
    """Import a module, and return the function of it that a "module:function" names."""
    module, _, function = name.partition(":")
    imported = importlib.import_module(module)
    return getattr(imported, function) if function else None


def run_kernel(request: Request) -> None:
    """Run an ipykernel in this process until it is shut down."""
    os.environ.clear()
    os.environ.update(request.environment)
    _forget()
    sys.argv = ["ipykernel_launcher", *request.arguments]
    for name in request.policy.preload:
        if (function := _imported(name)) is not None:
            function(fork=True)
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(argv=[*request.arguments, *_OPTIONS])


def _read_request(owner: socket.socket) -> Request:
    with owner.makefile("rb") as lines:
        return Request.from_bytes(lines.readline())


def _forget() -> None:
    """Forget what was found out before the fork: folders, and numbers that two kernels would both draw."""
    import multiprocessing.process
    import tempfile

    tempfile.tempdir = None
    random.seed()
    # What a spawned process puts first on its path in the place of "": not where the template started.
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()
    multiprocessing.current_process().authkey = os.urandom(32)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def main() -> NoReturn:
    """Serve on the descriptor given as the first argument, with the modules given as the others."""
    sys.path[:] = [path for path in sys.path if path]
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
