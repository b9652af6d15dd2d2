"""The template of trusted processes: it imports what an exercise's tests need once, and each is a fork of it.

It runs neither student code nor test code, and computes nothing, so that a fork of it is fresh.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path

from coursekit.grading.trusted import frames
from coursekit.notebooks.forbidden import parse_cell

# What tests may allocate on top of what is there once everything is imported.
MEMORY_BYTES = 4 * 2**30
_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from coursekit.grading.trusted.template import serve; serve(int(sys.argv[2]), sys.argv[3:])"
)


class Template:
    """A running template with `modules` imported. Imports go on in the background; forks wait for them."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.owner, self.lock = os.getpid(), threading.Lock()
        self.control, theirs = socket.socketpair()
        path = [folder for folder in sys.path if folder]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(path), str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Expected values are small; several gradings on one machine must not each take all of it.
                env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def fork(self, folder: Path | str) -> socket.socket:
        """Return the channel to a new trusted process that works in `folder` (see `cells.serve`)."""
        ours, theirs = socket.socketpair()
        with self.lock, theirs:
            socket.send_fds(self.control, [os.fsencode(folder)], [theirs.fileno()])
        return ours

    @property
    def alive(self) -> bool:
        """Whether it runs and is this process's own, not one inherited by a fork."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End the template; processes forked from it end with it."""
        self.control.close()
        if self.owner != os.getpid():
            self.process.returncode = 0  # not ours to wait for
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


_templates: dict[frozenset[str], Template] = {}
_lock = threading.Lock()


def template_for(modules: Iterable[str]) -> Template:
    """Return this process's template with these modules, started if need be."""
    key = frozenset(modules)
    with _lock:
        if not _templates:
            atexit.register(_close_all)
        if key not in _templates or not _templates[key].alive:
            if key in _templates:
                _templates[key].close()
            _templates[key] = Template(sorted(key))
        return _templates[key]


def _close_all() -> None:
    for template in _templates.values():
        template.close()


def imported_modules(sources: Iterable[str]) -> set[str]:
    r"""Return the modules that cells import at their top level.

    >>> sorted(imported_modules(["import torch", "from torch.nn import functional\n\ndef f(): import os"]))
    ['torch', 'torch.nn']
    """
    modules: set[str] = set()
    for tree in filter(None, map(parse_cell, sources)):
        for node in tree.body:
            if isinstance(node, ast.Import):
                modules |= {item.name for item in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    return modules


def serve(descriptor: int, modules: Iterable[str]) -> None:
    """Import `modules`, then fork a trusted process a request until the other end of the socket is gone."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    for name in (*modules, "coursekit.grading.trusted.cells", "coursekit.notebooks.expect", "numpy"):
        # What cannot be imported here fails in the cell that imports it, where it is reported.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork's garbage collector then leaves the shared pages alone, which would be copied
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        folder, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not folder:
            return
        if os.fork() == 0:
            try:
                control.close()
                _trusted_process(socket.socket(fileno=descriptors[0]), os.fsdecode(folder))
            finally:
                # No exit handlers: they are the template's.
                os._exit(0)
        os.close(descriptors[0])


def _trusted_process(channel: socket.socket, folder: str) -> None:
    from coursekit.grading.trusted.cells import serve as serve_cells

    os.setsid()  # a group of its own, to be killed as one
    _die_with_parent()
    _limit_memory()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    sys.path.insert(0, folder)  # an exercise's own modules, as in a notebook
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    channel.sendall(frames.frame(frames.READY, str(os.getpid()).encode()))
    serve_cells(channel)


def _limit_memory() -> None:
    """Make a test that allocates what a student said end in a MemoryError, instead of the machine."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the template dies; elsewhere the closed channel ends it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
