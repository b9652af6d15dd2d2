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
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coursekit.errors import CoursekitError, require
from coursekit.grading.cell_kinds import is_locked, is_test, name_of, text_of
from coursekit.grading.forked import current_template
from coursekit.grading.sandbox import excess
from coursekit.grading.sandbox.policy import Policy
from coursekit.grading.scratch import scratch_folder
from coursekit.grading.trusted.side import Bounds, TrustedSide
from coursekit.grading.trusted.template import imported_modules, template_for
from coursekit.notebooks.scoring import score_cell

CellState = Literal["ok", "error", "timeout", "died", "not_run"]
_NO_TURNS = nullcontext()


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
    hidden_tests: grade_ids of tests that the student was not given; nothing that they call with is shown.
    tests_in_place: run test cells in the student's kernel, where student code can change what they say.
    sandbox: what the kernel may do; None is a kernel as Jupyter starts it, with all that the grader may do.
    """

    notebook: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)
    student_names: frozenset[str] = frozenset()
    hidden_tests: frozenset[str] = frozenset()
    tests_in_place: bool = False
    sandbox: Policy | None = None


@dataclass(frozen=True)
class Run:
    """The executed notebook, the state of each of its cells, and the seconds it took, without those in which
    it waited for its turn.

    stopped: index of a cell that "died" -> what it used too much of (see `ForkedKernel`), where it was that.
    """

    notebook: bytes
    states: tuple[CellState, ...]
    seconds: float
    stopped: Mapping[int, str] = field(default_factory=dict)


def run_notebook(job: Job, turn: AbstractContextManager[Any] = _NO_TURNS) -> Run:
    """Return the notebook executed in a fresh kernel and a fresh folder.

    A student's function sees what a test calls it with, so nothing that is shown may come from a process that
    a hidden test has called. Where something could, the notebook runs once more, in another kernel without
    hidden tests, and what that gives is shown. A right answer that prints nothing runs once.

    A cell that raises, runs too long or kills the kernel is recorded as such; what cannot run any more is
    "not_run". Raises: KernelStartError if no kernel starts.

    turn: entered while cells run, such as a semaphore; kernels start and end outside of it.
    """
    cells = json.loads(job.notebook)["cells"]
    # Tests that run in place may use each other's names, and are unprotected in any case.
    hidden = {
        i for i, cell in enumerate(cells) if name_of(cell) in job.hidden_tests and not job.tests_in_place
    }
    everything = set(range(len(cells)))
    done = _run_in_folder(job, everything, turn)
    seconds = done.seconds
    if hidden and not _tells_nothing(done, hidden):
        shown, died = _run_in_folder(job, everything - hidden, turn), "died" in done.states
        seconds += shown.seconds
        # What a visible test did to the kernel must not cost the hidden tests that stand below it.
        again = _cells_for(hidden, cells, shown.states) if died else hidden
        if again:
            graded = _run_in_folder(job, again, turn) if died else done
            seconds += graded.seconds if died else 0.0
            shown.take(graded, hidden & again)
        done = shown
    executed = json.dumps(done.notebook, ensure_ascii=False).encode("utf-8", "replace")
    return Run(executed, tuple(done.states), seconds, done.stopped)


def start_templates(job: Job) -> None:
    """Start the processes that kernels and tests of such a job are forked from; do not wait for them."""
    if job.sandbox is not None:
        current_template(job.sandbox.preload, _environment(job))
    if sources := _trusted_sources(job):
        template_for(imported_modules(sources))


@dataclass
class _Pass:
    """What came of running some of a notebook's cells in one kernel, and how long that took."""

    notebook: dict[str, Any]
    states: list[CellState] = field(default_factory=list)
    stopped: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def take(self, other: _Pass, indices: set[int]) -> None:
        """Take what came of these cells from another pass."""
        for index in indices:
            self.notebook["cells"][index] = other.notebook["cells"][index]
            self.states[index] = other.states[index]
        self.stopped |= {index: what for index, what in other.stopped.items() if index in indices}


def _tells_nothing(done: _Pass, hidden: set[int]) -> bool:
    """Return whether nothing that is shown of a run says what the hidden tests in it called with.

    That is: below the first of them, visible tests all passed and showed only the points, which are ours, and
    the student's cells showed nothing. Cells are numbered by us.
    """
    for index, cell in enumerate(done.notebook["cells"]):
        if cell["cell_type"] != "code" or index in hidden or index < min(hidden):
            continue
        if done.states[index] != "ok" or any(o["output_type"] != "execute_result" for o in cell["outputs"]):
            return False
        if is_test(cell):
            if score_cell(cell).status != "passed":
                return False
        elif cell["outputs"]:
            return False
    return "died" not in done.states


def _cells_for(hidden: set[int], cells: list[dict[str, Any]], states: list[CellState]) -> set[int]:
    """Return which cells to run for hidden tests: these and all above them but the other tests.

    states: of the cells that have run. What stands below one that ended its kernel cannot run now either.
    """
    deadly = (i for i, state in enumerate(states) if state == "died" and not is_test(cells[i]))
    end = next(deadly, len(cells))
    last = max((index for index in hidden if index < end), default=-1)
    return {i for i in range(last + 1) if i in hidden or not is_test(cells[i])}


def _run_in_folder(job: Job, chosen: set[int], turn: AbstractContextManager[Any]) -> _Pass:
    """Run the chosen cells in a fresh kernel and a fresh folder."""
    with scratch_folder() as folder:
        box = Path(folder, "work")
        for name, data in job.files.items():
            target = box / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        box.mkdir(exist_ok=True)
        start = time.monotonic()
        done = asyncio.run(_execute(job, chosen, box, turn))
        done.seconds += time.monotonic() - start
        return done


async def _execute(job: Job, chosen: set[int], box: Path, turn: AbstractContextManager[Any]) -> _Pass:
    from coursekit.grading.kernel import make_client

    async with AsyncExitStack() as stack:
        side = await _trusted_side(job, stack)
        client = make_client(job.notebook, job.limits, box=box)
        manager = client.km  # the client forgets it when its kernel does not start
        stack.push_async_callback(_end, client, manager)
        await _start(client, job, box)
        done = _Pass(client.nb)
        asked = time.monotonic()
        with turn:  # this thread may wait here: nothing else is to be done in it
            done.seconds -= time.monotonic() - asked
            await _run_cells(client, side, chosen, job.limits, done)
        if job.sandbox is not None:
            _say_why(done, manager.provisioner.stopped, job.sandbox)
    return done


def _say_why(done: _Pass, what: str | None, policy: Policy) -> None:
    """Write into the cell in which the kernel was ended for using too much that this is why."""
    if what is None or "died" not in done.states:
        return
    index = done.states.index("died")
    done.stopped[index] = what
    text = excess.sentence(what, policy)
    error = {"output_type": "error", "ename": excess.NAME, "evalue": text, "traceback": [text]}
    done.notebook["cells"][index]["outputs"][-1] = _node(error)


async def _end(client: Any, manager: Any) -> None:
    provisioner = manager.provisioner
    with suppress(Exception):  # a kernel that is dead already may fail to shut down in many ways
        await client._async_cleanup_kernel()
    if provisioner is not None:
        with suppress(Exception):
            await provisioner.cleanup()  # however that went: no kernel and no folder of its stays
        _kill_group(provisioner.pgid)


async def _trusted_side(job: Job, stack: AsyncExitStack) -> TrustedSide | None:
    """Return the process that runs the tests, getting ready; None where they run in place or are none."""
    if not (sources := _trusted_sources(job)):
        return None
    limits = job.limits
    bounds = Bounds(limits.start_seconds, limits.drain_seconds, limits.output_bytes)
    side = TrustedSide(student_names=job.student_names, bounds=bounds)
    stack.push_async_callback(side.close)
    await side.start(sources, job.files)
    return side


def _trusted_sources(job: Job) -> list[str]:
    """Return the cells that run on the trusted side; none where tests run in place or there are none."""
    cells = json.loads(job.notebook)["cells"]
    if job.tests_in_place or not any(is_test(cell) for cell in cells):
        return []
    return [text_of(cell) for cell in cells if is_test(cell) or is_locked(cell)]


def _environment(job: Job) -> dict[str, str]:
    return {**os.environ, "NBGRADER_EXECUTION": "autograde", **job.environment}


async def _start(client: Any, job: Job, box: Path) -> None:
    from coursekit.grading.provisioner import use_sandbox

    try:
        if job.sandbox is not None:
            use_sandbox(client.km, job.sandbox, folder=box.parent / "kernel")
        # The kernel's own log lines would mix with the progress display.
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        await client.async_start_new_kernel(cwd=str(box), env=_environment(job), **quiet)
        await client.async_start_new_kernel_client()
    except Exception as error:
        raise KernelStartError(f"no kernel started: {type(error).__name__}: {error}") from error


async def _run_cells(
    client: Any, side: TrustedSide | None, chosen: set[int], limits: Limits, done: _Pass
) -> None:
    deadline = time.monotonic() + limits.notebook_seconds
    for index, cell in enumerate(client.nb.cells):
        left = deadline - time.monotonic()
        if cell.cell_type != "code":
            done.states.append("ok")
        elif index not in chosen or "died" in done.states or left <= 0:
            done.states.append("not_run")
        else:
            seconds = max(1, round(min(limits.cell_seconds, left)))
            done.states.append(await _run_cell(client, side, index, seconds))


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


def _node(output: dict[str, Any]) -> Any:
    return require("nbformat", extra="grading").from_dict(output)


def _kill_group(group: int | None) -> None:
    # Processes that the student's cells started share the kernel's group, which is not ours.
    if group is not None and group != os.getpgrp():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
