"""seccomp: system calls that no exercise needs and that attacks on a kernel begin with.

The filter is a program for the system's packet-filter machine, assembled here: no compiled dependency.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from coursekit.grading.sandbox.libc import PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, prctl

# What is refused, by name: (number on x86_64, number on aarch64), None where it does not exist.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes, and the kernel's own doors
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # the shape of the file system and of namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "mount_setattr": (442, 442),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "quotactl": (179, 60),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "personality": (135, 92),
    # memory that no limit of ours counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    # the share of other processes, and what all users of a machine have of one store
    "ioprio_set": (251, 30), "io_setup": (206, 0),
    # back to who started it
    "setuid": (105, 146), "setreuid": (113, 145), "setresuid": (117, 147), "setfsuid": (122, 151),
    "setgid": (106, 144), "setregid": (114, 143), "setresgid": (119, 149), "setfsgid": (123, 152),
    "setgroups": (116, 159),
}  # fmt: skip
# Only for the caller itself (0), as the same user's processes may otherwise set each other's. Nothing is done
# for another and said to be done: libraries call it with the numbers of their own threads.
OF_ONESELF: dict[str, tuple[int | None, int | None]] = {
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}  # fmt: skip
# What leads out by a path: Landlock does not look at connections, nor at being told of new names.
BY_PATH: dict[str, tuple[int | None, int | None]] = {
    "connect": (42, 203),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
}  # fmt: skip
# What Landlock does not look at: permissions, owners, attributes and times of files.
PERMISSIONS: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
_SPECIAL = {"clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "ioctl": (16, 29)}
_SPECIAL |= {"fcntl": (72, 25)}
_SPECIAL |= {"socketpair": (53, 199), "setpriority": (141, 140), "prlimit64": (302, 261)}
_SPECIAL |= {"setsockopt": (54, 208)}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH
_NEW_NAMESPACES = 0x7E020000 | 0x00000080  # every CLONE_NEW flag: a namespace would bring capabilities back
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into the terminal of whoever started us
# A lease on a library makes others wait who open it; F_NOTIFY tells of what others make in a folder; locks of
# an open file (F_OFD_*) have no owner by whom to count them.
_FILE_COMMANDS = (1024, 1026, 36, 37, 38)
# Buffers as large as the system grants would hold more than the number of sockets lets expect.
_OF_SOCKETS, _BUFFERS = 1, (7, 8)  # SOL_SOCKET; SO_SNDBUF, SO_RCVBUF
UNIX, INTERNET, INTERNET_6, NETLINK = 1, 2, 10, 16
_STREAM, _SOCKET_KIND = 1, 0xF

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32  # offsets in struct seccomp_data


def restrict_system_calls(*, internet: bool, own_files: bool) -> None:
    """From now on, refuse this process and all that it starts the calls of `DENIED`.

    They fail with EPERM; those of `OF_ONESELF` do nothing for another process or thread, nor is the size of a
    socket's buffers changed. Sockets other than Unix ones, and internet ones where `internet` is true, fail
    with EOPNOTSUPP. Unless `own_files`, unless it sees a file system of its own alone, the calls of `BY_PATH`
    fail as well, sockets are streams, and the calls of `PERMISSIONS` do nothing and say that it is done:
    every copy of a file ends with one.

    Raises: OSError where the system refuses, or on a machine whose numbers are not known.
    """
    program = b"".join(
        struct.pack("=HBBI", *line) for line in _program(internet=internet, own_files=own_files)
    )
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    filter_mode = 2
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, filter_mode, ctypes.byref(header))


Line = tuple[int, int, int, int]  # code, lines to skip if true, if false, operand


def _program(*, internet: bool, own_files: bool) -> list[Line]:
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    column, architecture = _MACHINES[machine]
    families = [UNIX, *([INTERNET, INTERNET_6, NETLINK] if internet else [])]
    special = {name: numbers[column] for name, numbers in _SPECIAL.items()}
    lines: list[Line] = [
        *[(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)],
        (_LOAD, 0, 0, _NUMBER),
        # The x32 numbers of x86_64 are a second way to the same calls.
        *_refuse(_AT_LEAST, 0x40000000, errno.ENOSYS),
    ]
    nothing_done = 0
    outside = {} if own_files else PERMISSIONS
    for table, error in (
        (DENIED, errno.EPERM),
        ({} if own_files else BY_PATH, errno.EPERM),
        (outside, nothing_done),
    ):
        for numbers in table.values():
            if (number := numbers[column]) is not None:
                lines += _refuse(_EQUAL, number, error)
    for numbers in OF_ONESELF.values():
        lines += _when(numbers[column], _FIRST, _refuse_unless(0, nothing_done))
    lines += _when(special["prlimit64"], _FIRST, _refuse_unless(0))
    # First whose kind: a process's, a group's or a user's. Then which: only the caller itself.
    lines += _when(
        special["setpriority"], _FIRST, [*_refuse_unless(0), (_LOAD, 0, 0, _SECOND), *_refuse_unless(0)]
    )
    only_streams = [(_AND, 0, 0, _SOCKET_KIND), *_refuse_unless(_STREAM)]
    if not own_files:
        lines += _when(special["socketpair"], _SECOND, only_streams)
    # Its flags lie in memory, where a filter cannot look; the C library then falls back to clone.
    lines += _refuse(_EQUAL, special["clone3"], errno.ENOSYS)
    lines += _when(special["clone"], _FIRST, _refuse(_ANY_BIT, _NEW_NAMESPACES, errno.EPERM))
    file_commands = [line for command in _FILE_COMMANDS for line in _refuse(_EQUAL, command, errno.EPERM)]
    lines += _when(special["fcntl"], _SECOND, file_commands)
    commands = [line for command in _TERMINAL_INPUT for line in _refuse(_EQUAL, command, errno.EPERM)]
    lines += _when(special["ioctl"], _SECOND, commands)
    buffers = [line for option in _BUFFERS for line in _refuse(_EQUAL, option, nothing_done)]
    others = [(_EQUAL, 1, 0, _OF_SOCKETS), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _THIRD)]
    lines += _when(special["setsockopt"], _SECOND, [*others, *buffers])
    # EOPNOTSUPP: the only refusal for which ZeroMQ, looking for network devices, does not abort its process.
    # A datagram is sent to a path without a connection.
    kinds = [] if own_files else [(_LOAD, 0, 0, _SECOND), *only_streams]
    body = {family: [*(kinds if family == UNIX else []), (_RETURN, 0, 0, _ALLOW)] for family in families}
    allowed = [
        line for family in families for line in ((_EQUAL, 0, len(body[family]), family), *body[family])
    ]
    lines += _when(special["socket"], _FIRST, [*allowed, (_RETURN, 0, 0, _ERROR | errno.EOPNOTSUPP)])
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _refuse(test: int, operand: int, error: int) -> list[Line]:
    return [(test, 0, 1, operand), (_RETURN, 0, 0, _ERROR | error)]


def _refuse_unless(operand: int, error: int = errno.EPERM) -> list[Line]:
    return [(_EQUAL, 1, 0, operand), (_RETURN, 0, 0, _ERROR | error)]


def _when(number: int, argument: int, body: list[Line]) -> list[Line]:
    """Return lines that look at an argument of one call, and end with its being allowed."""
    block = [(_LOAD, 0, 0, argument), *body, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(block), number), *block]
