"""Recognises a sick model by its tensors: dead units, missing or zero gradients, weights that stay put."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from coursekit.errors import InputError
from coursekit.train.findings import Finding


def find_gradient_faults(model: nn.Module) -> list[Finding]:
    """Return what is wrong with the gradients that `backward` left in the trained parameters.

    Three faults are told apart: no gradient at all, exactly zero everywhere, not finite. Call it after
    `backward` and before `zero_grad`, when there is doubt: it waits for the device.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = {name: p.grad for name, p in trained.items() if p.grad is not None}
    faults = {
        "no gradient": [name for name in trained if name not in grads],
        "zero gradient": [name for name, grad in grads.items() if not grad.any()],
        "gradient not finite": [name for name, grad in grads.items() if not grad.isfinite().all()],
    }
    return [
        Finding(fault, f"{_names(names)}: {fault}", *_GRADIENT[fault])
        for fault, names in faults.items()
        if names
    ]


@dataclass
class Updates:
    """What `watch_updates` saw; filled when its block ends."""

    unchanged: list[str] = field(default_factory=list)
    """Names of trained parameters that are bit for bit what they were."""

    @property
    def finding(self) -> Finding | None:
        """The fault in words, if a trained parameter stayed what it was."""
        if not self.unchanged:
            return None
        return Finding(
            "parameters unchanged",
            f"the step changed nothing in {_names(self.unchanged)}",
            "the optimizer holds other parameters (made before the model was wrapped or given a new layer), "
            "a zero learning rate or gradient, or an update below the precision of the weights (bf16)",
            "make the optimizer last; find_gradient_faults; fp32 master weights",
        )


@contextlib.contextmanager
def watch_updates(model: nn.Module) -> Iterator[Updates]:
    """Find the trained parameters that the block, one or more optimizer steps, leaves unchanged.

    Copies every trained parameter, and waits for the device at the end.
    """
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    updates = Updates()
    yield updates
    after = dict(model.named_parameters())
    updates.unchanged += [name for name, value in before.items() if torch.equal(value, after[name].detach())]


@dataclass
class DeadUnits:
    """What `watch_dead_units` saw so far. The record stays on the device until it is asked."""

    _active: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def dead(self) -> dict[str, list[int]]:
        """Units of each module that were never active, by their index; waits for the device."""
        return {name: (~active).nonzero().flatten().tolist() for name, active in self._active.items()}

    def findings(self, *, max_dead: float = 0.5) -> list[Finding]:
        """Return a finding for each module in which more than the part `max_dead` of the units is dead."""
        shares = {name: len(units) / len(self._active[name]) for name, units in self.dead.items()}
        return [
            Finding(
                "dead units",
                f"{share:.0%} of the units of {name} were never active".replace("%", " %"),
                "updates that were too large drove their inputs below zero for every sample, where ReLU "
                "passes no gradient back; or a bias that began far below zero",
                "a lower learning rate or a warm-up, He initialization, a normalization before them, GELU",
            )
            for name, share in shares.items()
            if share > max_dead
        ]


@contextlib.contextmanager
def watch_dead_units(
    model: nn.Module, *, kinds: tuple[type[nn.Module], ...] = (nn.ReLU,), modules: Iterable[str] = ()
) -> Iterator[DeadUnits]:
    """Find units whose output is never above zero while the block runs; let it see hundreds of samples.

    A unit is an index of the last dim (linear layers, transformers: (b, d) or (b, t, d)), or of dim 1 where
    the output has four or five (convolutions: (b, c, h, w)). Nothing waits for the device inside the block.

    Args:
        model: its forward passes are watched by hooks, which are taken off at the end.
        kinds: modules of these types are watched. A function such as `torch.relu` is no module: unseen.
        modules: names, as in `named_modules`, of others to watch.
    Raises: InputError if nothing is there to watch, or a name is unknown.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> nn.init.constant_(model[0].bias[1:2], -100.0).item()
    -100.0
    >>> with watch_dead_units(model) as units:
    ...     _ = model(torch.eye(2))
    >>> 1 in units.dead["1"]
    True
    """
    named = dict(model.named_modules())
    chosen = {name: m for name, m in named.items() if isinstance(m, kinds) or name in set(modules)}
    unknown = sorted(set(modules) - named.keys())
    if unknown or not chosen:
        got = unknown or f"no {' or '.join(kind.__name__ for kind in kinds)}"
        raise InputError("there is nothing to watch", expected="modules of the model", got=got)
    units = DeadUnits()
    with contextlib.ExitStack() as hooks:
        for name, module in chosen.items():
            hooks.callback(module.register_forward_hook(_recorder(units._active, name)).remove)
        yield units


def _recorder(active: dict[str, Tensor], name: str):
    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        unit_dim = 1 if output.dim() in (4, 5) else -1
        now = (output.detach() > 0).movedim(unit_dim, -1).flatten(0, -2).any(0)
        active[name] = active[name] | now if name in active else now

    return record


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


_GRADIENT = {
    "no gradient": (
        "the loss does not depend on them (a module that forward skips, a detach, no_grad, NumPy between)",
        "call each of them in forward, or freeze them on purpose with requires_grad_(False)",
    ),
    "zero gradient": (
        "dead units, a saturated or masked branch, weights that are multiplied by zero (as in a fresh LoRA)",
        "watch_dead_units; zero at the first step alone may be the initialization, and harmless",
    ),
    "gradient not finite": (
        "an overflow in the backward pass (fp16 without loss scaling, the square root or norm of zero)",
        "loss scaling or bf16, an epsilon under the root; torch.autograd.set_detect_anomaly(True) names the "
        "operation",
    ),
}
