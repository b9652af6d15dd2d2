"""`coursekit.train`, `.parallel` and `.models` work with torch, numpy and the base dependencies alone.

Every package of this environment that a plain `pip install coursekit` would not bring is hidden from a fresh
interpreter, which then uses them.
"""

import importlib.metadata
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def base_install() -> set[str]:
    """Return the distributions that coursekit without extras needs, and what those need."""
    found, waiting = set(), [Requirement("coursekit")]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = ["", *requirement.extras]
        if name in found and extras == [""]:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            wanted = needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras)
            if wanted and _is_installed(needed.name):
                waiting.append(needed)
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def hidden_modules() -> list[str]:
    """Return the top-level modules that no distribution of the base install holds."""
    base = base_install()
    return sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not any(canonicalize_name(owner) in base for owner in owners)
    )


HIDE = """
import sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)
    def find_distributions(self, *arguments):  # torch looks for optional packages by their metadata
        found = getattr(self.finder, "find_distributions", lambda *_: ())(*arguments)
        return (d for d in found if d.name.lower().replace("_", "-").replace(".", "-") in BASE)
HIDDEN, BASE = set({hidden!r}), set({base!r})
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def run_with_base_alone(code: str) -> subprocess.CompletedProcess:
    script = HIDE.format(hidden=hidden_modules(), base=sorted(base_install())) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)


def test_what_hides_packages_hides_them_and_leaves_the_base():
    hidden = set(hidden_modules())
    assert {"tensorflow", "nbgrader", "matplotlib", "sklearn", "pytest", "tensorboard"} <= hidden
    assert hidden.isdisjoint({"torch", "numpy", "rich", "typer", "cloudpickle", "jaxtyping", "coursekit"})
    done = run_with_base_alone("import matplotlib")
    assert "ModuleNotFoundError: No module named 'matplotlib'" in done.stderr


@pytest.mark.parametrize("package", ["train", "parallel", "models", "plan"])
def test_every_public_name_can_be_had(package):
    code = f"import coursekit.{package} as p\nprint([hasattr(p, name) for name in p.__all__].count(False))"
    done = run_with_base_alone(code)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_model_trains_on_two_processes():
    code = """
import torch
from coursekit.models import GPT, GPTConfig
from coursekit.parallel import average_gradients, launch
from coursekit.train import accumulate_gradients, count_valid

def step():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=7, max_seq_len=8, d_model=8, n_layers=1, n_heads=2))
    ids = torch.randint(7, (2, 8))
    def loss_sum(ids):
        logits = model(ids[:, :-1]).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum")
    loss = accumulate_gradients(loss_sum, [ids], num_valid=count_valid(ids[:, 1:]))
    average_gradients(model)
    return loss.item()

first, second = launch(step, 2)
print(first == second)
"""
    done = run_with_base_alone(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
