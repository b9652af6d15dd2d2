"""System calls that Python has no function for, called through ctypes."""

from __future__ import annotations

import ctypes
import os
import platform

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442  # the same number everywhere, like all calls that came after it

# The symbols of the running program: CDLL(None) works with glibc, musl and on macOS.
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0, pointer: object = 0) -> int:
    """Return the result of `prctl(option, value, pointer, 0, 0)`. Raises: OSError."""
    # c_ulong: a plain int would be passed as 32 bits and leave the rest of the register undefined.
    rest = pointer if not isinstance(pointer, int) else ctypes.c_ulong(pointer)
    zero = ctypes.c_ulong(0)
    return _checked(_libc.prctl(option, ctypes.c_ulong(value), rest, zero, zero), f"prctl {option}")


def syscall(number: int, *args: object, what: str) -> int:
    """Return the result of a system call by its number. Raises: OSError, which names `what`."""
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(_libc.syscall(ctypes.c_long(number), *wide), what)


def unshare(flags: int) -> None:
    """Move this process into new namespaces. Raises: OSError."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, *, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount `source` at `target`. Raises: OSError."""
    words = [word.encode() if word else None for word in (source, target, kind)]
    result = _libc.mount(*words, ctypes.c_ulong(flags), options.encode() if options else None)
    _checked(result, f"mount {kind or source} at {target}")


def set_mount_attributes(path: str, attributes: int) -> None:
    """Set attributes of the mount at `path` and of all below it. Raises: OSError."""
    request = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    at_fdcwd, recursive = -100, 0x8000
    what = f"mount_setattr {path}"
    syscall(_MOUNT_SETATTR, at_fdcwd, path.encode(), recursive, request, ctypes.sizeof(request), what=what)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root, and put what was the root at `old`. Raises: OSError."""
    syscall(_PIVOT_ROOT[platform.machine()], new.encode(), old.encode(), what="pivot_root")


def detach(path: str) -> None:
    """Unmount `path` and all below it, even while in use. Raises: OSError."""
    mnt_detach = 2
    _checked(_libc.umount2(path.encode(), mnt_detach), f"umount {path}")


def forbid_capabilities() -> None:
    """Make sure that no program which this process runs gets a capability; it keeps those it has."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except PermissionError:
            break  # an ordinary user has nothing to drop; no_new_privs keeps it so
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def drop_capabilities() -> None:
    """Give up all capabilities of this process."""
    version_3 = 0x20080522
    header, nothing = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, nothing), "capset")
