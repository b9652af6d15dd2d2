"""Namespaces: a process tree that sees its own processes, network, host name and shared memory only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

from coursekit.grading.sandbox.libc import unshare
from coursekit.grading.sandbox.policy import Policy

NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
NEW_MOUNT, NEW_IPC, NEW_UTS = 0x00020000, 0x08000000, 0x04000000
_FLAGS = {"files": NEW_MOUNT, "network": NEW_NET, "processes": NEW_PID, "ipc": NEW_IPC | NEW_UTS}


def enter_namespaces(policy: Policy) -> bool:
    """Move this process into the namespaces of the policy's layers; return whether it did so as root.

    Processes that it starts from now on are in the new PID namespace; it itself is not.
    Root needs no user namespace, so what root's sandbox can do does not hang on the system's permission for
    strangers to make one.
    Raises: OSError where the system refuses.
    """
    flags = sum(flag for layer, flag in _FLAGS.items() if layer in policy.layers)
    if not flags:
        return os.geteuid() == 0
    as_root = os.geteuid() == 0 and _unshared(flags)
    if not as_root:
        _unshare_as_user(flags)
    if "network" in policy.layers:
        raise_loopback()
        bound_connections()
    if "ipc" in policy.layers:
        socket.sethostname("box")
    return as_root


def raise_loopback() -> None:
    """Switch the loopback interface on: gloo and ipykernel talk over it within the box."""
    siocsifflags, up_and_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, siocsifflags, struct.pack("16sh14x", b"lo", up_and_running))


def bound_connections() -> None:
    """Bound the bytes that a connection of this network holds, which no process is seen to have.

    By the system's own bound of megabytes a few hundred connections fill what all programs of the machine
    share.
    """
    for name in ("tcp_rmem", "tcp_wmem"):
        # A container may have it read-only; then the number of sockets is what bounds them.
        with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv4/{name}", "w") as file:
            file.write("4096 65536 131072")


def _unshared(flags: int) -> bool:
    try:
        unshare(flags)
    except PermissionError:
        return False  # root of a container that lacks the capability
    return True


def _unshare_as_user(flags: int) -> None:
    user, group = os.geteuid(), os.getegid()
    unshare(NEW_USER | flags)
    for name, text in (
        ("setgroups", "deny"),  # the system asks for it before an ordinary user may write gid_map
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
