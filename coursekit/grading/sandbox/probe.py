"""What this machine grants: each layer is tried, in a process of its own, before it is relied upon."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coursekit.errors import InputError
from coursekit.grading.sandbox import filesystem, landlock, limits, seccomp
from coursekit.grading.sandbox.namespaces import enter_namespaces
from coursekit.grading.sandbox.policy import LAYERS, Policy, modules_for

PROTECTS = {
    "files": "a file system of its own: only the box, the interpreter and libraries exist in it",
    "landlock": "the system refuses other files a second time, and signals to processes outside",
    "network": "a network of its own, with nobody else on it",
    "processes": "sees no other processes, and leaves none running",
    "ipc": "no shared memory or host name in common with the machine",
    "system_calls": "calls that break-outs begin with are refused",
    "account": "a user of its own, who owns nothing outside (only where root grades)",
    "limits": "memory, processor time, processes, open files and file sizes are bounded",
}
# What a submission must not be graded without, and the layers any one of which gives it.
ESSENTIAL = {
    "files of the grader and of other students": ("files", "landlock"),
    "the network": ("network", "system_calls"),
    "other processes": ("processes", "landlock_signals"),
}


@dataclass(frozen=True)
class Protection:
    """What a machine grants.

    granted: names of layers, and "landlock_signals" where Landlock also keeps signals in.
    refused: name -> why not.
    """

    granted: frozenset[str]
    refused: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """What a student's code could reach here, of that which grading must keep from it."""
        return [what for what, layers in ESSENTIAL.items() if not self.granted & set(layers)]

    @property
    def notes(self) -> list[str]:
        """A sentence for each layer that is refused, but for the one that root alone has."""
        words = {name: why for name, why in self.refused.items() if name != "account"}
        return [f"not protected by {name} ({PROTECTS[name]}): {why}" for name, why in words.items()]

    def policy(self, **bounds: Any) -> Policy:
        """Return a policy with all that is granted, and these bounds."""
        return Policy(layers=self.granted & set(LAYERS), **bounds)

    def require(self, *, allow_unsandboxed: bool) -> None:
        """Make sure that nothing essential is missing, or that it is waived. Raises: InputError."""
        if self.missing and not allow_unsandboxed:
            raise InputError(
                f"this machine does not keep students' code from {', '.join(self.missing)}",
                got="; ".join(f"{name} refused ({why})" for name, why in self.refused.items()),
                fix="see: coursekit doctor --grading; to grade all the same: --allow-unsandboxed",
            )


@functools.cache
def probe() -> Protection:
    """Return what this machine grants; tried once a process, in another one.

    >>> probe().granted >= {"limits"}
    True
    """
    done = subprocess.run(
        [sys.executable, "-c", "from coursekit.grading.sandbox.probe import main; main()"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    refused = json.loads(done.stdout)
    granted = {name for name in (*LAYERS, "landlock_signals") if name not in refused}
    refused.pop("landlock_signals", None)
    return Protection(frozenset(granted), refused)


def sandbox_for(notebook: dict[str, Any], seconds: float, *, allow_unsandboxed: bool) -> Policy:
    """Return the policy to run a notebook with: all that this machine grants.

    Args:
        notebook: whose code says what the template imports.
        seconds: how long it may run; all processors for so long is what each process may use.
        allow_unsandboxed: go on where the machine refuses what is essential.
    Raises: InputError if something essential is missing, and not waived.
    """
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    protection = probe()
    protection.require(allow_unsandboxed=allow_unsandboxed)
    cpu_seconds = round(seconds) * (os.cpu_count() or 1)
    return protection.policy(cpu_seconds=cpu_seconds, preload=modules_for(code))


def main() -> None:
    """Print, as JSON, the layers that are refused, and why."""
    with tempfile.TemporaryDirectory(prefix="ckp-") as folder:
        for name in ("root", "sockets", "files"):
            os.mkdir(os.path.join(folder, name))
        reasons = {name: _refusal(attempt) for name, attempt in _attempts(folder).items()}
    print(json.dumps({name: reason for name, reason in reasons.items() if reason is not None}))


def _attempts(folder: str) -> dict[str, Callable[[], object]]:
    if sys.platform != "linux":
        refuse = functools.partial(_refuse, f"not on {sys.platform}")
        others = (*LAYERS, "landlock_signals")
        return {name: refuse for name in others if name != "limits"} | {"limits": _try_limits}
    namespaces = {
        name: functools.partial(enter_namespaces, Policy(frozenset({name}))) for name in ("network", "ipc")
    }
    return namespaces | {
        "files": functools.partial(_try_root, folder, frozenset({"files"})),
        "processes": functools.partial(_try_root, folder, frozenset({"files", "processes"})),
        "account": _try_account,
        "landlock": functools.partial(landlock.restrict_files, read=["/"], write=[], sockets=[]),
        "landlock_signals": _try_landlock_signals,
        "system_calls": functools.partial(seccomp.restrict_system_calls, internet=True, own_files=False),
        "limits": _try_limits,
    }


def _refusal(attempt: Callable[[], object]) -> str | None:
    """Return why an attempt fails in a forked process, or None if it does not."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except BaseException as error:
            os.write(writer, f"{error}"[:500].encode() or b"refused")
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return reason or (f"ended with status {status}" if status else None)


def _try_root(folder: str, layers: frozenset[str]) -> None:
    policy = Policy(layers, box_bytes=2**20, shm_bytes=2**20)
    enter_namespaces(policy)
    # In a child: this process itself is not in the new PID namespace, and could not mount its /proc.
    if reason := _refusal(functools.partial(_enter_and_look, folder, policy)):
        raise OSError(reason)


def _enter_and_look(folder: str, policy: Policy) -> None:
    root, sockets, files = (os.path.join(folder, name) for name in ("root", "sockets", "files"))
    filesystem.enter_root(
        root, policy=policy, readable=["/usr/lib"], sockets=sockets, files=files, account=None
    )
    os.listdir("/proc/self")


def _try_account() -> None:
    if not enter_namespaces(Policy(frozenset({"files"}))):
        raise PermissionError("only root can give a kernel a user of its own")


def _try_landlock_signals() -> None:
    if landlock.landlock_version() < 6:
        raise OSError("needs version 6 of Landlock")


def _try_limits() -> None:
    limits.set_limits(Policy(), tasks=None)


def _refuse(reason: str) -> None:
    raise OSError(reason)
