"""Attempts from inside a box: each must fail with its layer and succeed without it."""

from __future__ import annotations

import json

import pytest

from coursekit.grading.run import Job, Limits, run_notebook
from coursekit.grading.sandbox.policy import LAYERS, Policy
from coursekit.grading.sandbox.probe import Protection, probe

LIMITS = Limits(cell_seconds=30, notebook_seconds=60, drain_seconds=5)


def run_inside(code_notebook, *sources, policy: Policy | None, files=None):
    """Run cells in a kernel with a policy; return their states and outputs' texts."""
    run = run_notebook(Job(code_notebook(*sources), files or {}, LIMITS, sandbox=policy))
    cells = json.loads(run.notebook)["cells"]
    return run.states, [[_text(output) for output in cell["outputs"]] for cell in cells]


def _text(output):
    return output.get("evalue") or output.get("text") or output.get("data", {}).get("text/plain")


class Attempt:
    """Runs code in boxes with and without a layer."""

    def __init__(self, code_notebook, protection: Protection) -> None:
        self.code_notebook, self.protection = code_notebook, protection

    def fails_with(self, *layers: str, code: str, **bounds) -> list:
        """The code fails in a box with these layers alone, and in one with all; return what it said."""
        said = []
        for chosen in {frozenset(layers), self.granted}:
            states, outputs = self.run(code, chosen, **bounds)
            assert states != ("ok",), (sorted(chosen), outputs)
            said.append(outputs[0][-1])
        return said

    def works_without(self, *layers: str, code: str, **bounds) -> None:
        """The code runs in a box with all layers but these: it is they that stop it."""
        states, outputs = self.run(code, self.granted - set(layers), **bounds)
        assert states == ("ok",), outputs

    def run(self, code: str, layers, **bounds):
        return run_inside(self.code_notebook, code, policy=Policy(frozenset(layers), preload=(), **bounds))

    @property
    def granted(self) -> frozenset[str]:
        return self.protection.granted & set(LAYERS)

    def refused(self, *layers: str) -> bool:
        """Whether this machine refuses one of the layers; then the probe must say so, and grading with it."""
        missing = [layer for layer in layers if layer not in self.granted]
        for layer in missing:
            assert self.protection.refused[layer]
            assert layer not in self.protection.policy().layers
        return bool(missing)


@pytest.fixture
def attempt(code_notebook):
    return Attempt(code_notebook, probe())
