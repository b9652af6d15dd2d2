"""Which files a page depends on: too few would show old outputs, too many would run pages for nothing."""

import pytest

from coursekit.notebooks.dependencies import installed_versions, package_files


@pytest.fixture
def package(tmp_path):
    """A package with a lazy sub-package of two modules, one of which uses a third at the top."""
    files = {
        "__init__.py": "",
        "units.py": "MiB = 2**20",
        "train/__init__.py": "import lazy_loader",
        "train/__init__.pyi": "from .steps import step as step\nfrom .seeds import seed as seed\n",
        "train/steps.py": "from kit.units import MiB\n\n\ndef step(): ...\n",
        "train/seeds.py": "from .steps import step\n\n\ndef seed(): ...\n",
        "plots/__init__.py": "",
        "plots/lines.py": "def draw(): ...\n",
    }
    for name, text in files.items():
        path = tmp_path / "kit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "kit"


def names(source, package):
    return {path.relative_to(package).as_posix() for path in package_files([source], package)}


def test_a_name_leads_through_the_stub_to_its_module_and_what_that_imports(package):
    assert names("from kit.train import step", package) == {"train/__init__.py", "train/steps.py", "units.py"}


def test_a_relative_import_is_followed(package):
    assert "train/steps.py" in names("from kit.train import seed", package)


def test_an_unused_module_of_the_same_package_does_not_count(package):
    assert "train/seeds.py" not in names("from kit.train import step", package)


@pytest.mark.parametrize(
    "source",
    [
        "import kit.train",
        "from kit import train",
        "%time\nfrom kit.train import nothing_known",
        'script = "import kit.train"',
        "def inside():\n    import kit.train as t",
    ],
)
def test_what_cannot_be_followed_by_name_counts_as_a_whole(package, source):
    assert {"train/steps.py", "train/seeds.py"} <= names(source, package)


def test_code_that_imports_nothing_of_the_package_depends_on_none_of_it(package):
    assert names("import torch\nfrom numpy import kit", package) == set()


def test_the_version_of_an_imported_distribution_counts():
    assert any(line.startswith("numpy ") for line in installed_versions(["import numpy as np"]))
    assert any(line.startswith("sklearn ") for line in installed_versions(["from sklearn import datasets"]))
    assert installed_versions(["import json"]) == []
