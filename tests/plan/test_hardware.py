"""The machine that the tests run on, against the system's own tools."""

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from coursekit.errors import InputError
from coursekit.plan import this_machine


@pytest.fixture(scope="module")
def machine():
    return this_machine()


def test_it_is_the_machine_that_the_system_describes(machine):
    assert machine.python == platform.python_version()
    assert machine.processors == os.cpu_count()
    assert machine.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.free_disk_bytes == pytest.approx(shutil.disk_usage(".").free, rel=0.2)
    assert machine.system in ("Linux", "macOS")


def test_what_is_usable_is_at_most_what_is_there(machine):
    assert 0 < machine.usable_processors <= machine.processors
    assert 0 < machine.available_memory_bytes <= machine.usable_memory_bytes <= machine.memory_bytes


def test_versions_are_those_installed(machine):
    assert machine.torch.version == metadata.version("torch")
    try:
        assert machine.tensorflow == metadata.version("tensorflow")
    except metadata.PackageNotFoundError:
        assert machine.tensorflow is None


@pytest.mark.skipif(shutil.which("nproc") is None, reason="no nproc")
def test_affinity_agrees_with_nproc(machine):
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(["nproc"], capture_output=True, text=True, check=True, env=environment)
    assert machine.usable_processors <= int(done.stdout)


def test_tensorflow_is_never_imported():
    code = "import sys; from coursekit.plan import this_machine; this_machine()\n"
    code += "assert 'torch' in sys.modules and 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_is_not_there_is_an_error():
    with pytest.raises(InputError, match="no such folder"):
        this_machine(folder=Path("nowhere/at/all"))
