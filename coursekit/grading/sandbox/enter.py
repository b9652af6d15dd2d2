"""From a fork to a kernel in its box: the layers in the order in which they can be put on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NoReturn

from coursekit.grading.sandbox import filesystem, landlock, libc, limits, seccomp
from coursekit.grading.sandbox.keeper import Keeper
from coursekit.grading.sandbox.namespaces import enter_namespaces
from coursekit.grading.sandbox.policy import Policy

# What a process may read of itself: not /proc/self/net and task, which say where the sockets of others are.
_OWN = ("fd", "fdinfo", "maps", "smaps", "smaps_rollup", "stat", "statm", "status", "cmdline", "exe", "comm")
_OWN += ("environ", "auxv", "mounts", "mountinfo", "limits", "cgroup", "io")
# Below the ids of containers that map only 16 bits, above those of people.
_FIRST_ACCOUNT, _ACCOUNTS = 61184, 4336
# The system's own limit lies above the policy's, so that the keeper ends what would only be held at it.
_SPARE_TASKS = 64


@dataclass(frozen=True)
class Request:
    """What the owner asks for: a kernel in a box.

    arguments: of the kernel program; environment: all of it.
    folder: an empty directory to build on; sockets: the directory that the owner connects through.
    files: the directory whose files the kernel works among.
    readable: outer paths that it may read.
    """

    arguments: tuple[str, ...]
    environment: dict[str, str]
    policy: Policy
    folder: str
    sockets: str
    files: str
    readable: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Return the request as a line of JSON."""
        return json.dumps({**asdict(self), "policy": self.policy.to_json()}).encode() + b"\n"

    @classmethod
    def from_bytes(cls, line: bytes) -> Request:
        """Return the request that `to_bytes` wrote."""
        data = json.loads(line)
        return cls(**{**data, "policy": Policy.from_json(data["policy"])})


def become_kernel(request: Request, owner: socket.socket, run: Callable[[Request], object]) -> NoReturn:
    """Turn this freshly forked process into a keeper with a kernel below it, in the policy's sandbox.

    The owner is told `{"ready": pid}` when the kernel is about to run, `{"error": ...}` if that fails.
    Needs a process with one thread. `run` is called with the request in the kernel, inside.
    """
    try:
        kernel, box = _prepare(request, owner, run)
    except BaseException as error:
        _report(owner, error)
        os._exit(1)
    sockets = filesystem.SOCKETS if box is None else request.sockets
    Keeper(kernel, owner, request.policy, box=box, sockets=sockets).serve()


def _prepare(
    request: Request, owner: socket.socket, run: Callable[[Request], object]
) -> tuple[int, str | None]:
    policy = request.policy
    os.setsid()
    _reset(owner)
    if sys.platform == "linux":
        # Orphans come to us, wherever they have gone; without it a double fork would get away.
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    tasks = _tasks_before(policy)
    as_root = enter_namespaces(policy)
    account = _account(policy, request, as_root=as_root)
    if "processes" in policy.layers and os.fork():
        os._exit(0)  # the template adopts the keeper, which is the first process of the new namespace
    if "files" in policy.layers:
        filesystem.enter_root(
            request.folder,
            policy=policy,
            readable=request.readable,
            sockets=request.sockets,
            files=request.files,
            account=account,
        )
    else:
        os.chdir(request.files)
    if sys.platform == "linux" and policy.layers:
        libc.prctl(libc.PR_SET_DUMPABLE, 0)  # nobody of the same user looks into the keeper
    kernel = os.fork()
    if kernel == 0:
        _run_kernel(request, owner, account, tasks, run)
    return kernel, None if "files" in policy.layers else request.files


def _run_kernel(
    request: Request,
    owner: socket.socket,
    account: tuple[int, int] | None,
    tasks: int | None,
    run: Callable[[Request], object],
) -> NoReturn:
    status = 1
    try:
        os.setsid()  # a group to signal, and a share of the processor that does not starve its keeper
        confine(request, account=account, tasks=tasks)
        if sys.platform == "linux":
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # where no namespace ends with the keeper
        owner.sendall(json.dumps({"ready": os.getpid()}).encode() + b"\n")
    except BaseException as error:
        _report(owner, error)
        os._exit(status)
    owner.close()
    try:
        run(request)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        os._exit(status & 255)


def confine(request: Request, *, account: tuple[int, int] | None, tasks: int | None) -> None:
    """Put on the layers that a process puts on itself; no way back. Raises: OSError where one is refused."""
    policy = request.policy
    boxed = bool(policy.layers) and sys.platform == "linux"
    if boxed:
        # Set to 0 in the keeper: without it, a process may not reach its own /proc/self.
        libc.prctl(libc.PR_SET_DUMPABLE, 1)
        libc.forbid_capabilities()  # before the change of user, which takes the right to do so
    if "limits" in policy.layers:
        limits.be_first_to_go()
    if account:
        os.setgroups([])
        os.setresgid(account[1], account[1], account[1])
        os.setresuid(account[0], account[0], account[0])
    counted = bool(account) or (boxed and _is_counted_apart(request))
    if "limits" in policy.layers:
        limits.set_limits(policy, tasks=policy.tasks + _SPARE_TASKS if counted else tasks)
    if not boxed:
        return
    libc.prctl(libc.PR_SET_DUMPABLE, 1)  # the change of user took it away
    libc.drop_capabilities()
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in policy.layers:
        landlock.restrict_files(**_landlock_paths(request))
    if "system_calls" in policy.layers:
        layers = policy.layers
        seccomp.restrict_system_calls(internet="network" in layers, own_files="files" in layers)


def _landlock_paths(request: Request) -> dict[str, list[str]]:
    if "files" in request.policy.layers:
        write = [filesystem.BOX, "/tmp", "/dev/shm", "/dev/pts", "/dev/null"]
        return {"read": ["/"], "write": write, "sockets": [filesystem.SOCKETS]}
    # /proc/self is this process's; those that it starts cannot read theirs.
    read = [*request.readable, "/dev/zero", "/dev/random", "/dev/urandom"]
    read += [f"/proc/self/{name}" for name in _OWN]
    read += [f"/proc/{name}" for name in ("cpuinfo", "meminfo", "stat", "loadavg", "sys", "filesystems")]
    read += ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf"]
    # Not the machine's /dev/shm: what one student leaves there the next would find.
    write = [request.files, "/dev/null", "/dev/full"]
    return {"read": read, "write": write, "sockets": [request.sockets]}


def _is_counted_apart(request: Request) -> bool:
    """Give a kernel of root's, which has no account of its own, at least a real user of its own.

    By that user the system counts processes; root's it does not count at all. The kernel itself still reads
    what root may read, an interpreter in root's folder among it; what it executes is the other user's.
    Return whether it was granted.
    """
    if os.getresuid() != (0, 0, 0):
        return False
    try:
        os.setresuid(_FIRST_ACCOUNT + os.getppid() % _ACCOUNTS, 0, 0)
        os.chmod(request.files, 0o777)  # those programs write there as well; nobody else comes so far
    except OSError:
        return False
    return True


def _tasks_before(policy: Policy) -> int | None:
    """Return the limit on the user's tasks, before namespaces hide the others; None for root."""
    if sys.platform != "linux" or os.geteuid() == 0 or "limits" not in policy.layers:
        return None
    # In a user namespace the system counts that namespace's tasks alone.
    others = 0 if policy.layers & {"files", "network", "ipc"} else limits.tasks_of_user()
    return others + policy.tasks + _SPARE_TASKS


def _account(policy: Policy, request: Request, *, as_root: bool) -> tuple[int, int] | None:
    """Return a user and group that nobody else has, for root to hand the kernel to."""
    if "account" not in policy.layers or not as_root:
        return None
    # One a kernel: the system counts processes by user, and a crowded box must not starve another.
    number = _FIRST_ACCOUNT + os.getpid() % _ACCOUNTS
    for path in (
        request.sockets,
        *(os.path.join(request.sockets, name) for name in os.listdir(request.sockets)),
    ):
        os.chown(path, number, number)
    return number, number


def _reset(owner: socket.socket) -> None:
    """Undo what a fork inherits: signals, and descriptors other than the owner's socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    kept = owner.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 65536)


def _report(owner: socket.socket, error: BaseException) -> None:
    text = f"{type(error).__name__}: {error}"[:500]
    with contextlib.suppress(OSError):
        owner.sendall(json.dumps({"error": text}).encode() + b"\n")
