"""`coursekit doctor`, as a person and as a program reads it."""

import json
import os
import subprocess
import sys

import pytest

from coursekit.plan import check_machine, this_machine


def doctor(*arguments, **environment):
    command = [sys.executable, "-c", "from coursekit.cli import main; main()", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_it_reads_on_a_phone_wide_terminal():
    done = doctor(COLUMNS="40")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 40
    for row in check_machine(this_machine()):
        assert any(line.startswith(f"{row.verdict:<7}{row.topic}:") for line in lines)
    assert done.stderr == ""


def test_what_protects_grading_reads_there_as_well():
    lines = doctor("--grading", COLUMNS="40").stdout.splitlines()
    assert max(map(len, lines)) <= 40
    for name in ("files", "network", "account"):
        assert any(line.startswith((f"yes  {name}:", f"no   {name}:")) for line in lines)


def test_its_exit_status_says_whether_something_is_short():
    done = doctor()
    assert done.returncode == ("short" in {line.split(" ")[0] for line in done.stdout.splitlines()})


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
def test_a_process_with_little_memory_is_short():
    code = "from coursekit.cli import main; main()"
    shell = f"ulimit -v 6000000; exec {sys.executable} -c '{code}' doctor"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 1
    assert "short  memory: 6.1 GB of" in done.stdout
    assert "ulimit -v" in done.stdout


def test_json_holds_machine_checks_and_settings():
    report = json.loads(doctor("--json").stdout)
    assert set(report) == {"machine", "checks", "settings"}
    assert {row["verdict"] for row in report["checks"]} <= {"ok", "enough", "short"}
    assert report["machine"]["torch"]["version"]
    assert report["settings"]["threads"] >= 1


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['coursekit', 'doctor', '--help']\n"
    code += "from coursekit.cli import app\ntry:\n    app()\nexcept SystemExit:\n    pass\n"
    code += "assert 'torch' not in sys.modules and 'coursekit.plan' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [("--grading", "--json")])
def test_what_cannot_be_given_is_said(arguments):
    done = doctor(*arguments)
    assert done.returncode == 2
    assert "leave out" in done.stderr
