"""System calls, capabilities and environment."""

import json

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
