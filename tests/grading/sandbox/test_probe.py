"""What a machine does not grant is said, and is not silently done without."""

import json
import subprocess
import sys

import pytest

from coursekit.errors import InputError
from coursekit.grading.sandbox.policy import LAYERS, Policy
from coursekit.grading.sandbox.probe import PROTECTS, Protection, probe

BARE = Protection(frozenset({"limits"}), {name: "refused here" for name in LAYERS if name != "limits"})
# In a process that may not make namespaces, as in most containers; its children cannot either.
NO_NAMESPACES = """
import json, sys
from coursekit.grading.sandbox.seccomp import restrict_system_calls
restrict_system_calls(internet=True, own_files=True)
from coursekit.grading.run import Job, Limits, run_notebook
from coursekit.grading.sandbox.probe import probe
protection = probe()
notebook, secret = open(sys.argv[1], "rb").read(), sys.argv[2]
run = run_notebook(Job(notebook, limits=Limits(30, 60), sandbox=protection.policy(preload=())))
print(json.dumps({"refused": protection.refused, "missing": protection.missing, "states": run.states}))
"""


def test_what_is_missing_is_named_and_asked_about():
    with pytest.raises(InputError, match="--allow-unsandboxed") as raised:
        BARE.require(allow_unsandboxed=False)
    for what in ("files of the grader", "the network", "other processes", "landlock refused (refused here)"):
        assert what in str(raised.value)
    BARE.require(allow_unsandboxed=True)
    assert BARE.policy().layers == {"limits"}
    assert len(BARE.notes) == len(LAYERS) - 2  # limits is there, and root's own account is no loss


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ({"files", "network", "processes"}, []),
        ({"landlock", "landlock_signals", "system_calls"}, []),
        ({"landlock", "system_calls"}, ["other processes"]),
        ({"network", "processes"}, ["files of the grader and of other students"]),
    ],
)
def test_each_essential_may_be_given_by_one_of_two_layers(granted, missing):
    assert Protection(frozenset(granted), {}).missing == missing


def test_a_layer_cannot_stand_on_air():
    for layer in ("processes", "account"):
        with pytest.raises(InputError, match="add 'files'"):
            Policy(frozenset({layer}))
    with pytest.raises(InputError, match="unknown layer"):
        Policy(frozenset({"moat"}))


def test_doctor_says_a_line_for_each_layer():
    command = [sys.executable, "-c", "from coursekit.cli import main; main()", "doctor", "--grading"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == bool(probe().missing)
    for name, what in PROTECTS.items():
        assert f"{'no ' if name in probe().refused else 'yes'}  {name}" in done.stdout
        assert what in " ".join(done.stdout.split())  # broken at the terminal's width


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
def test_without_namespaces_the_other_layers_hold(code_notebook, tmp_path):
    secret = tmp_path / "gradebook.db"
    secret.write_text("grades")
    notebook = tmp_path / "notebook.ipynb"
    connect = "import socket; socket.socket()"
    notebook.write_bytes(
        code_notebook("1", f"open({str(secret)!r})", connect, "import os; os.kill(os.getppid(), 0)")
    )
    command = [sys.executable, "-c", NO_NAMESPACES, str(notebook), str(secret)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "system_calls" in probe().refused:
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"files", "network", "processes", "ipc"} <= set(report["refused"])
    if "landlock" not in report["refused"] and not report["missing"]:
        assert report["states"] == ["ok", "error", "error", "error"]
