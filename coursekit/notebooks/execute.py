"""Running a notebook from the top in a kernel of its own."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coursekit.errors import require

if TYPE_CHECKING:
    from nbformat import NotebookNode

CHECKING = "COURSEKIT_CHECKING"
CELL_SECONDS = 60.0


def run_notebook(
    notebook: NotebookNode,
    *,
    cwd: Path | str,
    cell_seconds: float = CELL_SECONDS,
    kernel_name: str = "python3",
    prepare: Callable[[Any], object] | None = None,
) -> NotebookNode:
    """Return an executed copy of a notebook; errors stand in its outputs, old outputs are dropped first.

    A cell that takes longer than `cell_seconds` is interrupted and the rest still runs. A kernel that
    dies leaves the cells after it without an execution count.

    Args:
        notebook: what to run.
        cwd: the kernel's working directory.
        cell_seconds: how long a cell may run.
        kernel_name: which kernel.
        prepare: called with the kernel's `jupyter_client` manager before it starts the kernel, to have it
            started in another way, as a fork for instance.
    """
    nbclient = require("nbclient", extra="notebooks")
    from jupyter_client.manager import AsyncKernelManager

    copy = without_outputs(notebook)
    finished: set[int] = set()
    sockets = tempfile.TemporaryDirectory(prefix="ck-", ignore_cleanup_errors=True)
    # Files instead of TCP ports: no two kernels, nor a rank of `launch`, can be given the same one.
    manager = AsyncKernelManager(
        kernel_name=kernel_name, transport="ipc", connection_file=os.path.join(sockets.name, "k.json")
    )
    if prepare is not None:
        prepare(manager)
    client = nbclient.NotebookClient(
        copy,
        km=manager,
        timeout=math.ceil(cell_seconds),  # nbclient takes whole seconds only
        interrupt_on_timeout=True,
        error_on_timeout={"ename": "CellTimeoutError", "evalue": "", "traceback": []},
        allow_errors=True,
        kernel_name=kernel_name,
        resources={"metadata": {"path": str(cwd)}},
        # The kernel warns on stderr that its sockets on this machine's loopback are not encrypted.
        extra_arguments=["--log-level=ERROR"],
        shutdown_kernel="immediate",
        store_widget_state=False,
        record_timing=False,
        on_cell_executed=lambda cell, cell_index, execute_reply: finished.add(cell_index),
    )
    # A notebook may call check() on itself: in the kernel that checks it, that must not start another one.
    env = {key: value for key, value in os.environ.items() if key != "JPY_SESSION_NAME"}
    try:
        with sockets:
            client.execute(env=env | {CHECKING: "1"}, cleanup_kc=True)
    except nbclient.exceptions.DeadKernelError:
        _forget_unfinished(copy, finished)
    return copy


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Return a copy whose code cells have no output and no execution count."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy


def _forget_unfinished(notebook: NotebookNode, finished: set[int]) -> None:
    """Mark the cells that gave no reply as not run, and put the reason where the kernel died."""
    from nbformat.v4 import new_output

    text = "the kernel died while it ran this cell"
    reason = [new_output("error", ename="DeadKernelError", evalue=text, traceback=[text])]
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip() and index not in finished:
            # A cell gets its number before it runs: the number alone does not mean that it ran.
            cell.execution_count, cell.outputs, reason = None, reason, []
