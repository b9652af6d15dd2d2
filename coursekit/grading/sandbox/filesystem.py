"""A root of its own: only what a kernel needs exists in it, and only its box can be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from coursekit.grading.sandbox.libc import detach, mount, pivot_root, set_mount_attributes
from coursekit.grading.sandbox.policy import Policy

BOX, SOCKETS = "/box", "/sockets"
WORK, HOME, TEMPORARY = f"{BOX}/work", f"{BOX}/home", f"{BOX}/tmp"
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _SLAVE = 1 << 5, 1 << 12, 1 << 14, 1 << 19
_MAX_TERMINALS = 64
_DEVICES = ("null", "zero", "full", "random", "urandom")


def enter_root(
    folder: str,
    *,
    policy: Policy,
    readable: Iterable[str],
    sockets: str,
    files: str,
    account: tuple[int, int] | None,
) -> None:
    """Make this process's root a new file system, in a mount namespace of its own, and go to its `/box/work`.

    Args:
        folder: an empty directory of the outer file system, to build on.
        policy: sizes of the box and of shared memory; whether there is a /proc of its own.
        readable: outer paths that exist inside as well, read-only.
        sockets: outer directory that is `/sockets` inside; what is made there is seen outside.
        files: outer directory whose files are copied into the box.
        account: user and group that the box belongs to, if not this process's.
    Raises: OSError where the system refuses.
    """
    mount("none", "/", flags=_SLAVE | _RECURSIVE)  # what is mounted here must not appear outside
    mount("tmpfs", folder, kind="tmpfs", flags=_NO_SUID | _NO_DEVICES, options="mode=0755,size=16m")
    root = Path(folder)
    _make_box(root, policy, files, account)
    _make_devices(root, policy)
    _make_proc(root, own="processes" in policy.layers)
    for path in readable:
        _show(root, path)
    _write_etc(root, account or (os.geteuid(), os.getegid()))
    _bind(sockets, root / SOCKETS.lstrip("/"))
    mount("none", folder, flags=_REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES)
    os.chdir(folder)
    pivot_root(".", ".")  # the old root now lies over the new one, and is taken away
    detach(".")
    os.chdir(WORK)


def _make_box(root: Path, policy: Policy, files: str, account: tuple[int, int] | None) -> None:
    box = root / "box"
    box.mkdir()
    options = f"mode=0755,size={policy.box_bytes},nr_inodes=50000"
    mount("tmpfs", str(box), kind="tmpfs", flags=_NO_SUID | _NO_DEVICES, options=options)
    for name in ("home", "tmp"):
        (box / name).mkdir()
    shutil.copytree(files, box / "work", symlinks=True)
    (box / "work").chmod(0o755)
    if account:
        for path in (box, *box.rglob("*")):
            os.chown(path, *account, follow_symlinks=False)
    (root / "tmp").mkdir()
    mount(str(box / "tmp"), str(root / "tmp"), flags=_BIND)


def _make_devices(root: Path, policy: Policy) -> None:
    (root / "dev/shm").mkdir(parents=True)
    options = f"mode=1777,size={policy.shm_bytes},nr_inodes=10000"
    mount("tmpfs", str(root / "dev/shm"), kind="tmpfs", flags=_NO_SUID | _NO_DEVICES, options=options)
    for name in _DEVICES:
        (root / "dev" / name).touch()
        mount(f"/dev/{name}", str(root / "dev" / name), flags=_BIND)
    (root / "dev/pts").mkdir()  # a shell command in a cell (`!ls`) runs in a terminal
    # The machine has a few thousand terminals for all.
    options = f"newinstance,ptmxmode=0666,mode=0620,max={_MAX_TERMINALS}"
    mount("devpts", str(root / "dev/pts"), kind="devpts", flags=_NO_SUID | _NO_PROGRAMS, options=options)
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd{target}")


def _make_proc(root: Path, *, own: bool) -> None:
    (root / "proc").mkdir()
    if own:
        mount("proc", str(root / "proc"), kind="proc", flags=_NO_SUID | _NO_DEVICES | _NO_PROGRAMS)
    else:
        mount("/proc", str(root / "proc"), flags=_BIND | _RECURSIVE)


def _show(root: Path, path: str) -> None:
    """Make an outer path exist inside, read-only; a link as a link, and what it leads to."""
    if not os.path.exists(path):
        return
    inside = root / path.lstrip("/")
    if os.path.islink(path) and not os.path.lexists(inside):
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.symlink_to(os.readlink(path))
    elif not os.path.islink(path) and not inside.exists():
        _bind(path, inside)
        set_mount_attributes(str(inside), _READ_ONLY | _NO_SUID | _NO_DEVICES)
    real = os.path.realpath(path)
    if real != path:
        _show(root, real)


def _bind(path: str, inside: Path) -> None:
    inside.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(path):
        inside.mkdir(exist_ok=True)
    else:
        inside.touch()
    # Recursive: the system does not let an ordinary user uncover what lies under a mount.
    mount(path, str(inside), flags=_BIND | _RECURSIVE)


def _write_etc(root: Path, account: tuple[int, int]) -> None:
    user, group = account
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(f"student:x:{user}:{group}::{HOME}:/bin/sh\n")
    (root / "etc/group").write_text(f"student:x:{group}:\n")
    # Of the system's own only the files: its other sources, such as LDAP, are on the network.
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost box\n::1 localhost\n::ffff:127.0.0.1 localhost\n")
