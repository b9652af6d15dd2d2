"""Run: a notebook's bytes in, the executed notebook's bytes and what each cell did out.

`run_notebook` is a pure function of its job, picklable both ways, so that any `concurrent.futures.Executor`
can carry it. It neither knows students nor scores.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coursekit.errors import CoursekitError, require
from coursekit.grading.sandbox.policy import Policy
from coursekit.grading.trusted.side import Bounds, TrustedSide

CellState = Literal["ok", "error", "timeout", "died", "not_run"]


class KernelStartError(CoursekitError):
    """No kernel could be started: the grader's fault, not the student's."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one run: seconds for a cell, the notebook, the start of a kernel; output of a cell.

    drain_seconds: how long after a cell's end its output may still arrive; after that the kernel counts as
    gone, which is what happens to a loop that cannot be interrupted.
    """

    cell_seconds: float = 60.0
    notebook_seconds: float = 600.0
    start_seconds: float = 60.0
    drain_seconds: float = 10.0
    output_bytes: int = 10**6
    output_pieces: int = 1000


@dataclass(frozen=True)
class Job:
    """A notebook to run, and how.

    files: what lies beside the notebook, name -> bytes.
    environment: what the kernel's environment gets.
    student_names: names that the exercise's solution cells define. Tests find no others on the student's
        side.
    tests_in_place: run test cells in the student's kernel, where student code can change what they say.
    sandbox: what the kernel may do; None is a kernel as Jupyter starts it, with all that the grader may do.
    """

    notebook: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)
    student_names: frozenset[str] = frozenset()
    tests_in_place: bool = False
    sandbox: Policy | None = None


@dataclass(frozen=True)
class Run:
    """The executed notebook, the state of each of its cells, and the seconds it took."""

    notebook: bytes
    states: tuple[CellState, ...]
    seconds: float


def run_notebook(job: Job) -> Run:
    """Return the notebook executed in a fresh kernel and a fresh folder.

    A cell that raises, runs too long or kills the kernel is recorded as such; what cannot run any more is
    "not_run". Raises: KernelStartError if no kernel starts.
    """
    start = time.monotonic()
    # ignore_cleanup_errors: what the student's processes write while we delete must not fail the grading.
    with tempfile.TemporaryDirectory(prefix="ck-", ignore_cleanup_errors=True) as folder:
        box = Path(folder, "work")
        for name, data in job.files.items():
            target = box / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        box.mkdir(exist_ok=True)
        notebook, states = asyncio.run(_execute(job, box))
    executed = json.dumps(notebook, ensure_ascii=False).encode("utf-8", "replace")
    return Run(executed, tuple(states), time.monotonic() - start)


async def _execute(job: Job, box: Path) -> tuple[dict[str, Any], list[CellState]]:
    from coursekit.grading.kernel import make_client

    async with AsyncExitStack() as stack:
        side = await _trusted_side(job, stack)
        client = make_client(job.notebook, job.limits, box=box)
        stack.push_async_callback(_end, client, client.km.context)
        await _start(client, job, box)
        states = await _run_cells(client, side, job.limits)
    return client.nb, states


async def _end(client: Any, sockets: Any) -> None:
    provisioner = client.km.provisioner
    with suppress(Exception):  # a kernel that is dead already may fail to shut down in many ways
        await client._async_cleanup_kernel()
    if provisioner is not None:
        with suppress(Exception):
            await provisioner.cleanup()  # however that went: no kernel and no folder of its stays
        _kill_group(provisioner.pgid)
    sockets.destroy(linger=0)  # made for this kernel; its sockets and threads end with it


async def _trusted_side(job: Job, stack: AsyncExitStack) -> TrustedSide | None:
    """Return the process that runs the tests, getting ready; None where they run in place or are none."""
    cells = json.loads(job.notebook)["cells"]
    if job.tests_in_place or not any(is_test(cell) for cell in cells):
        return None
    limits = job.limits
    bounds = Bounds(limits.start_seconds, limits.drain_seconds, limits.output_bytes)
    side = TrustedSide(student_names=job.student_names, bounds=bounds)
    stack.push_async_callback(side.close)
    await side.start([_text(cell) for cell in cells if is_test(cell) or is_locked(cell)], job.files)
    return side


async def _start(client: Any, job: Job, box: Path) -> None:
    from coursekit.grading.provisioner import use_sandbox

    environment = {**os.environ, "NBGRADER_EXECUTION": "autograde", **job.environment}
    try:
        if job.sandbox is not None:
            use_sandbox(client.km, job.sandbox, folder=box.parent / "kernel")
        # The kernel's own log lines would mix with the progress display.
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        await client.async_start_new_kernel(cwd=str(box), env=environment, **quiet)
        await client.async_start_new_kernel_client()
    except Exception as error:
        raise KernelStartError(f"no kernel started: {type(error).__name__}: {error}") from error


async def _run_cells(client: Any, side: TrustedSide | None, limits: Limits) -> list[CellState]:
    deadline = time.monotonic() + limits.notebook_seconds
    states: list[CellState] = []
    alive = True
    for index, cell in enumerate(client.nb.cells):
        left = deadline - time.monotonic()
        if cell.cell_type != "code":
            states.append("ok")
        elif not alive or left <= 0:
            states.append("not_run")
        else:
            seconds = max(1, round(min(limits.cell_seconds, left)))
            states.append(await _run_cell(client, side, index, seconds))
            alive = states[-1] != "died"
    return states


async def _run_cell(client: Any, side: TrustedSide | None, index: int, seconds: int) -> CellState:
    """Run a code cell where it belongs: tests on the trusted side, locked cells on both."""
    cell = client.nb.cells[index]
    if side and is_test(cell):
        name = cell.metadata["nbgrader"]["grade_id"]
        outputs, state = await side.test(name, cell.source, seconds=seconds, ask=client.ask)
        cell.outputs, cell.execution_count = [_node(output) for output in outputs], index + 1
        return state
    if side and is_locked(cell):
        await side.run(cell.metadata["nbgrader"]["grade_id"], cell.source)
    client.timeout = seconds
    return await client.run_cell(cell, index)


def is_test(cell: Mapping[str, Any]) -> bool:
    """Return whether a cell's outputs are points."""
    words = cell["metadata"].get("nbgrader", {})
    return cell["cell_type"] == "code" and bool(words.get("grade")) and not words.get("solution")


def is_locked(cell: Mapping[str, Any]) -> bool:
    """Return whether a code cell is the instructor's and no test: it runs on both sides."""
    words = cell["metadata"].get("nbgrader", {})
    plain = not words.get("grade") and not words.get("solution")
    return cell["cell_type"] == "code" and bool(words.get("locked")) and plain


def _node(output: dict[str, Any]) -> Any:
    return require("nbformat", extra="grading").from_dict(output)


def _text(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


def _kill_group(group: int | None) -> None:
    # Processes that the student's cells started share the kernel's group, which is not ours.
    if group is not None and group != os.getpgrp():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
