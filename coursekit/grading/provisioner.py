"""The kernel provisioner: jupyter_client's kernels, forked from a template into a sandbox.

Entry point `coursekit-sandbox` of `jupyter_client.kernel_provisioners`. A kernelspec asks for it in its
metadata; so does the environment variable `JUPYTER_DEFAULT_PROVISIONER_NAME`, for nbgrader's own programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Dict, Unicode

from coursekit.grading.forked import ForkedKernel, KernelRefusedError, current_template, plain_environment
from coursekit.grading.sandbox.enter import Request
from coursekit.grading.sandbox.filesystem import HOME, SOCKETS, TEMPORARY
from coursekit.grading.sandbox.policy import Policy, readable_paths
from coursekit.grading.scratch import scratch_folder

START_SECONDS = 60.0
KILL_SECONDS = 5.0


class SandboxProvisioner(LocalProvisioner):
    """Starts each kernel as a fork of a warm template, in the sandbox that its policy describes.

    policy: as `Policy.to_json` writes it; empty for a fork without a sandbox.
    """

    policy = Dict(help="Layers and bounds of the kernel's sandbox.").tag(config=True)
    folder = Unicode(help="A directory to make for the kernel's sockets; one of its own if empty.")
    process: ForkedKernel | None
    _own: TemporaryDirectory[str] | None = None
    _stopped: str | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Lay the kernel's sockets into a folder of its own: a network of its own leaves no other way in."""
        if not self._sockets.is_dir():
            if not self.folder:
                self._own = scratch_folder()
                self.folder = self._own.name
            for folder in (self._root, self._sockets):
                folder.mkdir(parents=True)
            manager = self.parent
            manager.transport, manager.ip = "ipc", str(self._sockets / "k")
            manager.connection_file = str(self._sockets / "k.json")
        return await super().pre_launch(**kwargs)

    @property
    def _sockets(self) -> Path:
        return Path(self.folder, "sockets")

    @property
    def _root(self) -> Path:
        return Path(self.folder, "root")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork a kernel, and return how to connect to it. Raises: KernelRefusedError."""
        policy = Policy.from_json(dict(self.policy)) if self.policy else Policy()
        environment = dict(kwargs.get("env") or os.environ)
        self.cwd = str(kwargs.get("cwd") or os.getcwd())
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        if "files" in policy.layers:
            inside = self._connection_inside()
            arguments = [
                inside if argument == self.parent.connection_file else argument for argument in arguments
            ]
        request = Request(
            arguments=tuple(arguments),
            environment=_boxed(environment, self.cwd, policy) if policy.layers else environment,
            policy=policy,
            folder=str(self._root),
            sockets=str(self._sockets),
            files=self.cwd,
            readable=readable_paths(),
        )
        template = current_template(policy.preload, environment)
        process = template.fork(request)
        try:
            await asyncio.to_thread(process.wait_until_ready, START_SECONDS)
        except KernelRefusedError as error:
            process.close()
            if template.alive:
                raise
            raise KernelRefusedError(f"{error}; its template says: {template.reason}") from error
        self.process = process
        self.pid, self.pgid = None, None  # of a namespace of its own: not to be signalled from here
        return self.connection_info

    def _connection_inside(self) -> str:
        """Write the connection as a kernel with a root of its own sees it; return the file's path there."""
        connection = json.loads(Path(self.parent.connection_file).read_bytes())
        data = json.dumps({**connection, "ip": f"{SOCKETS}/k"})
        path = self._sockets / "inside.json"
        path.touch(mode=0o600)  # it holds the key that messages are signed with
        path.write_text(data)
        return f"{SOCKETS}/{path.name}"

    async def wait(self) -> int | None:
        """Wait until the kernel has ended and left nothing behind."""
        status = 0
        if self.process:
            status = await asyncio.to_thread(self.process.wait)
            self._stopped = self.process.stopped
            self.process.close()
            self.process = None
        return status

    @property
    def stopped(self) -> str | None:
        """What the kernel used too much of, if it was ended for that (see `ForkedKernel`)."""
        if self.process:
            self.process.poll()
            return self.process.stopped
        return self._stopped

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and all that it started; return when that has happened."""
        await super().kill(restart)
        if self.process:
            # At once: its manager would look for it every tenth of a second.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.process.wait, KILL_SECONDS)

    async def send_signal(self, signum: int) -> None:
        """Have the kernel's process group signalled."""
        if self.process:
            self.process.send_signal(signum)

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of the kernel, which ends it, and remove the folder of its sockets."""
        await super().cleanup(restart)
        if not restart:
            if self.process:
                self.process.close()
                self.process = None
            if self._own:
                self._own.cleanup()
            elif self.folder:
                shutil.rmtree(self.folder, ignore_errors=True)


def use_sandbox(manager: Any, policy: Policy, *, folder: Path | None = None) -> None:
    """Make a kernel manager, before it starts its kernel, start it as a fork in the policy's sandbox.

    Args:
        manager: a `jupyter_client` kernel manager.
        policy: layers and bounds.
        folder: made for the kernel's sockets, and removed when it is cleaned up; its path must be short. By
            default one of its own.

    Raises: NoSuchKernel if the manager's kernel is not installed.
    """
    # Not through the kernelspec's metadata: the entry point is found only where coursekit is installed anew.
    manager.provisioner = SandboxProvisioner(
        kernel_spec=manager.kernel_spec, parent=manager, policy=policy.to_json(), folder=str(folder or "")
    )


def _boxed(environment: dict[str, str], cwd: str, policy: Policy) -> dict[str, str]:
    """Return the environment of a kernel in a box: nothing of the grader's but how programs are found."""
    home, temporary = (HOME, TEMPORARY) if "files" in policy.layers else (cwd, cwd)
    kept = {name: environment[name] for name in _FOR_KERNELS if name in environment}
    folders = dict.fromkeys(
        ("HOME", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"), home
    )
    # A `!pip install` that a learner left in a cell fails at once; its retries would use up the cell's time.
    alone = {"GLOO_SOCKET_IFNAME": "lo", "PIP_RETRIES": "0"} if "network" in policy.layers else {}
    return plain_environment(environment) | kept | folders | alone | {"TMPDIR": temporary}


_FOR_KERNELS = ("NBGRADER_EXECUTION", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL")
