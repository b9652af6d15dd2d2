"""Landlock: which files a process may open, whatever its user could; inherited by all that it starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from coursekit.grading.sandbox.libc import PR_SET_NO_NEW_PRIVS, prctl, syscall

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ_FILE, _READ_DIR, _MAKE_SOCK = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 9
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE | _READ_FILE | _TRUNCATE | _IOCTL


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    try:
        return syscall(_CREATE, None, 0, 1, what="landlock_create_ruleset")
    except OSError:
        return 0


def restrict_files(*, read: Iterable[str], write: Iterable[str], sockets: Iterable[str]) -> None:
    """From now on, let this process read below `read`, write below `write`, make sockets in `sockets`.

    Paths that do not exist are left out. From version 6 on it can send signals, and connect to abstract
    sockets, only within what it started. Raises: OSError where Landlock is not there.
    """
    version = syscall(_CREATE, None, 0, 1, what="landlock_create_ruleset")
    handled = _handled_rights(version)
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals
    attributes = struct.pack("QQQ", handled, 0, scoped)[: 24 if version >= 6 else 8]
    ruleset = syscall(_CREATE, attributes, len(attributes), 0, what="landlock_create_ruleset")
    for paths, rights in ((read, _READ), (write, handled), (sockets, _READ | _MAKE_SOCK)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                _allow(ruleset, path, rights & handled)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    syscall(_RESTRICT, ruleset, 0, what="landlock_restrict_self")
    os.close(ruleset)


def _handled_rights(version: int) -> int:
    rights = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL)):
        rights |= right if version >= since else 0
    return rights


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        syscall(_ADD_RULE, ruleset, 1, ctypes.create_string_buffer(rule), 0, what=f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)
