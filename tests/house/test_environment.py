"""Dependencies are declared once: pip, conda and the pins say the same."""

import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in (ROOT / "constraints.txt").read_text().split()
}
REQUIREMENTS = [
    Requirement(line)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in group
    if not line.startswith("coursekit")
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_conda_installs_the_same_extras_and_pins_as_make():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    made = runpy.run_path(str(ROOT / "tools/make_env.py"))["pip_arguments"]("default")
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.split("=")[1] + ".0")
    assert ["install", *" ".join(pip).split()] == made


def test_every_installed_package_is_pinned():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    installed = dict(line.split("==") for line in done.stdout.split())
    loose = {
        name: version
        for name, version in installed.items()
        if PINS.get(canonicalize_name(name)) != version.split("+")[0]
    }
    assert set(loose) <= {"coursekit", "pip"}


def make_env(*arguments, cwd, code=""):
    """Run tools/make_env.py in `cwd` after `code`, and return what it says."""
    path = str(ROOT / "tools/make_env.py")
    script = (
        f"import sys; sys.argv = ['make_env.py', *{list(arguments)!r}]\n"
        f"import importlib.util as u; s = u.spec_from_file_location('m', {path!r})\n"
        f"m = u.module_from_spec(s); s.loader.exec_module(m)\n{code}\nm.main()"
    )
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the two files that decide what is installed, and nothing else."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "arguments", "sentence"),
    [
        ("m.sys = type('S', (), {**vars(sys), 'version_info': (3, 9, 1)})", [], "needs Python 3.11 to 3.13"),
        ("m.shutil.disk_usage = lambda p: type('D', (), {'free': 2**30})", [], "GiB of free disk"),
        ("m.shutil.which = lambda p: None", [], "git is not installed"),
        ("", ["--torch", "gpu"], "TORCH=gpu is unknown"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(checkout, code, arguments, sentence):
    done = make_env(
        *arguments,
        cwd=checkout,
        code="m.shutil.disk_usage = lambda p: type('D', (), {'free': 2**50})\n" + code,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert sentence in lines[0]


def test_a_finished_environment_is_left_alone(checkout):
    stamp = checkout / ".venv/.coursekit-env"
    stamp.parent.mkdir()
    done = make_env(cwd=checkout, code=f"open({str(stamp)!r}, 'w').write(m.fingerprint('default'))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(stamp.parent.iterdir()) == [stamp]
