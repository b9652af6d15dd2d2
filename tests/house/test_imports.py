"""Who may import whom, read from the code's own import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "coursekit"

# What each room may import of coursekit, besides itself.
ALLOWED = {
    "errors": set(),
    "units": set(),
    "formulas": set(),
    "models": {"errors", "units", "formulas"},
    "data": {"errors", "units"},
    "train": {"errors", "units", "formulas"},
    "parallel": {"errors", "units", "formulas", "train", "models"},
    "finetune": {"errors", "units", "formulas", "train", "models", "data", "parallel"},
    "evaluate": {"errors", "units"},
    "plan": {"errors", "units", "formulas"},
    "deploy": {"errors", "units"},
    "tf": {"errors", "units"},
    "plots": set(),
    "grading": {"errors", "units", "notebooks"},
    "notebooks": {"errors", "units"},
}
# Third-party packages that a room never imports at module level (or, where the set says so, at all).
HEAVY = {
    "torch",
    "tensorflow",
    "keras",
    "nbgrader",
    "nbformat",
    "nbclient",
    "jupytext",
    "sklearn",
    "matplotlib",
    "transformers",
}
TOP_LEVEL = {
    "errors": set(),
    "units": set(),
    "models": {"torch"},
    "data": {"torch"},
    "train": {"torch"},
    "parallel": {"torch"},
    "finetune": {"torch"},
    "plots": {"matplotlib"},
    "tf": {"tensorflow", "keras"},
}
# Files that subclass a heavy package's classes, and are themselves imported inside functions only.
SUBCLASSES = {
    "grading/export.py": {"nbgrader"},
    "grading/feedback.py": {"nbgrader"},
    "grading/late.py": {"nbgrader"},
    "grading/preprocessors.py": {"nbgrader", "nbformat"},
    "grading/kernel.py": {"nbclient", "nbformat"},
}
NEVER = {"tf": {"torch"}, "data": {"tensorflow"}, "train": {"tensorflow"}, "parallel": {"tensorflow"}}


def room_of(path: Path) -> str:
    """Return the room of a file: its first folder below coursekit, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST):
    """Yield (module name, whether it stands at module level and runs) for every import in a file."""
    top = set()
    for node in ast.iter_child_nodes(tree):
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not guarded and not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            top.update(id(child) for child in ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "coursekit":
                yield from ((f"coursekit.{alias.name}", id(node) in top) for alias in node.names)
            else:
                yield node.module, id(node) in top


def breaches(source: str, room: str, subclasses: frozenset[str] | set[str] = frozenset()) -> list[str]:
    """Return what a file of `room` imports against the rules."""
    found = []
    for name, at_top in imports(ast.parse(source)):
        head, *rest = name.split(".")
        if head == "coursekit" and rest and room not in ("cli", "__init__"):
            if rest[0] != room and rest[0] not in ALLOWED[room]:
                found.append(f"{room} imports {name}")
        if head in NEVER.get(room, set()):
            found.append(f"{room} imports {name}, at any depth")
        if head in HEAVY and at_top and head not in TOP_LEVEL.get(room, set()) | subclasses:
            found.append(f"{room} imports {name} at module level")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_room_may(path):
    subclasses = SUBCLASSES.get(path.relative_to(PACKAGE).as_posix(), set())
    assert breaches(path.read_text(), room_of(path), subclasses) == []


@pytest.mark.parametrize("name", sorted(SUBCLASSES))
def test_a_file_that_subclasses_a_heavy_package_is_imported_inside_functions_only(name):
    module = "coursekit." + name.removesuffix(".py").replace("/", ".")
    importers = [
        path
        for path in PACKAGE.rglob("*.py")
        for imported, at_top in imports(ast.parse(path.read_text()))
        if imported == module and at_top and path.relative_to(PACKAGE).as_posix() not in SUBCLASSES
    ]
    assert importers == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("train", "from coursekit.models import GPT"),
        ("train", "from coursekit import parallel"),
        ("grading", "def f():\n    import coursekit.train.seed"),
        ("tf", "def f():\n    import torch"),
        ("notebooks", "import nbformat"),
        ("cli", "import torch"),
        ("errors", "import coursekit.units"),
    ],
)
def test_the_rule_catches_a_breach(room, source):
    assert breaches(source, room)


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\n"
    script += "print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stderr.split()}


def test_help_loads_nothing_heavy():
    help_text = "import sys; sys.argv = ['coursekit', '--help']; from coursekit.cli import app; app()"
    loaded = loaded_by(help_text)
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY | {"numpy"})


def test_nbformat_is_imported_without_grammars_that_no_notebook_needs():
    """They take two seconds; jsonschema builds them if it finds a package that JupyterLab brings along."""
    loaded = loaded_by("from coursekit.errors import require; require('nbformat', extra='notebooks')")
    assert "jsonschema" in loaded
    assert loaded.isdisjoint({"rfc3987_syntax", "lark"})
    plain = loaded_by("import nbformat")
    assert "lark" in plain, "without it they are built"


@pytest.mark.parametrize(
    "room", ["train", "parallel", "models", "notebooks", "grading", "tf", "plan", "plots"]
)
def test_naming_a_subpackage_loads_nothing_heavy(room):
    assert loaded_by(f"import coursekit; coursekit.{room}").isdisjoint(HEAVY)


def test_the_probe_of_loaded_modules_sees_torch():
    assert "torch" in loaded_by("import torch")
