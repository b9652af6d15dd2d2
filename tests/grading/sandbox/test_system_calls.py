"""System calls, capabilities and environment."""

import json
import socket

import pytest

from coursekit.grading.sandbox.policy import Policy
from coursekit.grading.sandbox.seccomp import DENIED

from .conftest import run_inside

CALL = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
number = {numbers}[platform.machine() == "aarch64"]
if libc.syscall(number, {arguments}) < 0: raise OSError(ctypes.get_errno(), "refused")
"""
# Calls that an ordinary process may make, with arguments that do no harm.
HARMLESS = {
    "ptrace": "0, 0, 0, 0",
    "memfd_create": "b'x', 0",
    "personality": "0xffffffff",
    "kcmp": "1, 1, 0, 0, 0",
}


@pytest.mark.parametrize("name", ["ptrace", "memfd_create", "personality"])
def test_a_denied_call_is_refused(attempt, name):
    if attempt.refused("system_calls"):
        return
    code = CALL.format(numbers=DENIED[name], arguments=HARMLESS[name])
    assert all("refused" in text for text in attempt.fails_with("system_calls", code=code))
    attempt.works_without("system_calls", code=code)


def test_no_namespace_brings_capabilities_back(attempt):
    if attempt.refused("system_calls"):
        return
    new_user = "0x10000000"
    attempt.fails_with("system_calls", code=CALL.format(numbers=DENIED["unshare"], arguments=new_user))
    clone = CALL.format(numbers=(56, 220), arguments=f"{new_user} | 17, 0, 0, 0, 0")
    attempt.fails_with("system_calls", code=clone + "\nimport os\nif os.getpid() == 1: os._exit(0)")


def test_a_kernel_has_no_capability_and_cannot_gain_one(attempt):
    code = "import json; print(json.dumps(dict(line.split(':\\t') for line in open('/proc/self/status'))))"
    for layers in ({"limits"}, attempt.granted):
        _, outputs = attempt.run(code, layers)
        status = {name: value.strip() for name, value in json.loads(outputs[0][0]).items()}
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} <= {"0" * 16}
        assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("where", ["dict(__import__('os').environ)", "open('/proc/self/environ').read()"])
def test_the_grader_s_environment_does_not_come_along(attempt, code_notebook, monkeypatch, where):
    monkeypatch.setenv("COURSE_PASSWORD", "open sesame")
    for layers in ({"limits"}, attempt.granted):
        _, outputs = run_inside(code_notebook, where, policy=Policy(frozenset(layers), preload=()))
        assert "PATH" in str(outputs)
        assert "sesame" not in str(outputs)
    _, outputs = run_inside(code_notebook, where, policy=None)
    assert "sesame" in str(outputs)


# With the keeper's number; each sets what is set already.
OF_THE_KEEPER = {
    "limits": "resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))",
    "priority": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "all_of_the_user": "os.setpriority(os.PRIO_USER, 0, 19)",
}


@pytest.mark.parametrize("code", OF_THE_KEEPER.values(), ids=OF_THE_KEEPER)
def test_only_the_own_limits_and_priority_can_be_set(attempt, code):
    if attempt.refused("system_calls"):
        return
    attempt.fails_with("system_calls", code=f"import os, resource\n{code}")
    own = "import os, resource\nos.nice(1)\nos.sched_setaffinity(0, os.sched_getaffinity(0))\n"
    states, outputs = attempt.run(f"{own}resource.setrlimit(resource.RLIMIT_CORE, (0, 0))", attempt.granted)
    assert states == ("ok",), outputs


def test_libraries_may_arrange_their_threads(attempt):
    # ZeroMQ gives up where it cannot set the policy of the thread that it has just started.
    code = "import os, threading\nos.sched_setscheduler(threading.get_native_id(), 0, os.sched_param(0))"
    states, outputs = attempt.run(code, attempt.granted)
    assert states == ("ok",), outputs


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket(socket.AF_UNIX).connect({path!r})",
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "if ctypes.CDLL(None).inotify_init1(0) < 0: raise OSError",
    ],
    ids=["connection", "datagram", "pair_of_datagrams", "news_of_folders"],
)
def test_without_files_of_its_own_a_kernel_reaches_nobody_by_a_path(attempt, tmp_path, code):
    if attempt.refused("system_calls"):
        return
    code = f"import ctypes, socket\n{code}".format(path=str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        _, outputs = attempt.run(code, {"system_calls", "landlock"} & attempt.granted)
        assert outputs[0], "it was not refused"
        attempt.works_without("files", "landlock", "processes", "account", "system_calls", code=code)


def test_where_the_sockets_of_others_are_is_not_told(attempt):
    if attempt.refused("landlock"):
        return
    code = "import os\nopen(f'/proc/self{path}/net/unix').read()"
    for path in ("", "/task/{os.getpid()}"):
        states, outputs = attempt.run(code.replace("{path}", path), {"landlock"})
        assert states == ("error",), outputs
    own = "open('/proc/self/status').read()\nlen(open('/proc/self/maps').read())"
    states, outputs = attempt.run(own, {"landlock"})
    assert states == ("ok",), outputs


def test_no_lease_on_a_library_makes_others_wait(attempt):
    if attempt.refused("system_calls"):
        return
    code = "import fcntl\nwith open(fcntl.__file__ if hasattr(fcntl, '__file__') else '/bin/true') as file:\n"
    attempt.fails_with("system_calls", code=f"{code}    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)")


def test_locks_without_an_owner_are_refused(attempt):
    if attempt.refused("system_calls"):
        return
    lock = "struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0)"
    code = f"import fcntl, struct\nwith open('locked', 'wb') as file: fcntl.fcntl(file, 37, {lock})"
    attempt.fails_with("system_calls", code=code)
    attempt.works_without("system_calls", code=code)
