"""Runs on a Dask cluster, for a class that one machine is too small for.

A job is bytes, and what comes back is bytes: workers need coursekit and what the exercise imports, but
neither the course folder nor the gradebook. What a worker that dies was running is given to another.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace

from coursekit.errors import InputError, require
from coursekit.grading.run import Job, Run
from coursekit.grading.sandbox.probe import probe

CONNECT_SECONDS, WORKERS_SECONDS = 10, 60


class ClusterExecutor(Executor):
    """Carries runs to the workers of a Dask scheduler.

    Args:
        address: the scheduler's, such as "tcp://10.0.0.5:8786".
        allow_unsandboxed: run on workers whose machine refuses what the sandbox needs.

    Raises: InputError if no scheduler answers there, or it has no workers.
    """

    def __init__(self, address: str, *, allow_unsandboxed: bool) -> None:
        distributed = require("distributed", extra="cluster")
        self.allow_unsandboxed = allow_unsandboxed
        try:
            self._client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            fix = "start one with: dask scheduler"
            raise InputError("no Dask scheduler answers", got=address, fix=fix) from error
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            self._client.close()
            fix = f"start some with: dask worker {address}"
            raise InputError("the Dask scheduler has no workers", got=address, fix=fix) from error
        self.num_workers = sum(self._client.nthreads().values())
        # Two equal notebooks are two jobs: what becomes of one must not hang on the other.
        self._executor = self._client.get_executor(pure=False)

    def submit(self, function: Callable[[Job], Run], job: Job) -> Future[Run]:  # type: ignore[override]
        """Return the future of `function(job)`, called on a worker in the sandbox of the worker's machine."""
        return self._executor.submit(_run_there, function, job, self.allow_unsandboxed)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of the cluster; what it has not finished is cancelled."""
        self._executor.shutdown(wait=False)
        self._client.close()


def _run_there(function: Callable[[Job], Run], job: Job, allow_unsandboxed: bool) -> Run:
    """Run a job with what the sandbox is granted here, which may be another machine than the grader's."""
    protection = probe()
    protection.require(allow_unsandboxed=allow_unsandboxed)
    sandbox = job.sandbox and replace(job.sandbox, layers=protection.policy().layers)
    return function(replace(job, sandbox=sandbox))
