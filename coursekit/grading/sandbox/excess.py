"""What a kernel was ended for, in the words that its author reads."""

from __future__ import annotations

from coursekit.grading.sandbox.policy import Policy
from coursekit.units import format_bytes

NAME = "StoppedError"
_ADVICE = {
    "memory": "let go of what is no longer needed, or work in smaller pieces",
    "tasks": "start fewer processes and threads, and wait for them to end",
    "processes": "start fewer processes at a time",
    "locks": "lock fewer parts of files",
    "disk": "write less into files",
    "sockets": "close connections that are no longer needed",
    "sessions": "start fewer programs at a time",
    "processor_time": "look for a loop that does not end, or for work that is done twice",
}


def sentence(what: str, policy: Policy) -> str:
    """Return why a kernel was ended, with the bound and with what can be done about it.

    Args:
        what: "memory", "tasks", "processes", "sessions", "disk", "sockets", "locks" or "processor_time", as
            the keeper says it.
        policy: the bounds.

    >>> sentence("disk", Policy(box_bytes=2**20))
    'stopped: it used more than 1.00 MiB of files; write less into files'
    """
    bound = {
        "memory": f"{format_bytes(policy.memory_bytes)} of memory",
        "tasks": f"{policy.tasks} processes and threads",
        "processes": f"{policy.processes} processes",
        "locks": f"{policy.locks} locks on files",
        "disk": f"{format_bytes(policy.box_bytes)} of files",
        "sockets": f"{policy.sockets} sockets",
        "sessions": f"{policy.sessions} sessions of processes",
        "processor_time": f"{policy.cpu_seconds} seconds of processor time",
    }
    return f"stopped: it used more than {bound[what]}; {_ADVICE[what]}"
