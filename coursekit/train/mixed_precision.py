"""Mixed precision: 16-bit arithmetic where it is safe, 32-bit where it is not, and a record of what is which.

A loop in bfloat16 needs `autocast` alone; one in float16 a loss scale as well (`LossScaler`), since the
smallest float16 is 6e-8 and gradients are often smaller.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coursekit.errors import InputError
from coursekit.train.loss_scaling import check_rule, next_loss_scale

_COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def autocast(device: str | torch.device, compute_dtype: torch.dtype) -> torch.autocast:
    """Return a context in which matrix products on `device` are computed in `compute_dtype`.

    It is `torch.autocast`: parameters stay float32, and are cast where an operation uses them; operations
    that lose too much in 16 bits are computed in float32. Put forward pass and loss inside, and leave the
    backward pass outside: it uses the dtypes of the forward pass by itself. With float32 the context does
    nothing, so that one loop serves all three.

    Args:
        device: where the model is, as a name or `torch.device`.
        compute_dtype: `torch.bfloat16`, `torch.float16` (with a `LossScaler`), or `torch.float32`.
    Raises: InputError for another dtype, one that the device does not compute in, or a GPU that is not there.
        `torch.autocast` only warns then, and goes on in float32.
    Source: Micikevicius et al. 2018, Mixed Precision Training (https://arxiv.org/abs/1710.03740).

    >>> x = torch.ones(2, 2)
    >>> with autocast("cpu", torch.bfloat16):
    ...     (x @ x).dtype
    torch.bfloat16
    """
    device_type = torch.device(device).type
    if compute_dtype not in _COMPUTE_DTYPES:
        raise InputError(
            "autocast computes in another dtype",
            expected=" or ".join(map(str, _COMPUTE_DTYPES)),
            got=compute_dtype,
            fix="for float64 leave autocast away and call model.double()",
        )
    if device_type == "cuda" and not torch.cuda.is_available():  # torch warns, and computes in float32
        raise InputError("there is no GPU to compute on", expected="cpu", got=device)
    if compute_dtype == torch.bfloat16 and device_type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bfloat16", fix="use torch.float16 with a LossScaler")
    return torch.autocast(device_type, dtype=compute_dtype, enabled=compute_dtype != torch.float32)


@contextlib.contextmanager
def record_op_dtypes() -> Iterator[dict[str, Counter[torch.dtype]]]:
    """Count, for each operation that runs in the block, the dtypes of what it returns.

    Which operations autocast leaves in float32 depends on the device and the version of torch (softmax: in
    float32 on CUDA, in 16 bits on a CPU), so the answer comes from running them, not from a list. Casts
    are operations too (`aten._to_copy`); views are not recorded. Enter it inside `autocast` or outside,
    as you like.

    >>> a, b = torch.rand(2, 2), torch.rand(2, 2)
    >>> with autocast("cpu", torch.bfloat16), record_op_dtypes() as dtypes:
    ...     loss = nn.functional.mse_loss(a @ b, b)
    >>> dict(dtypes["aten.mm"]), dict(dtypes["aten.mse_loss"])
    ({torch.bfloat16: 1}, {torch.float32: 1})
    """
    dtypes: dict[str, Counter[torch.dtype]] = {}
    with _RecordOpDtypes(dtypes):
        yield dtypes


class _RecordOpDtypes(TorchDispatchMode):
    # Autocast acts before dispatch modes do: what arrives here has the dtype in which it is computed.
    def __init__(self, dtypes: dict[str, Counter[torch.dtype]]) -> None:
        super().__init__()
        self.dtypes = dtypes

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if outputs and outputs[0].is_floating_point() and not func.is_view:
            # The first output is the result; others (layer norm's mean, a log-sum-exp) are kept for backward.
            self.dtypes.setdefault(str(func.overloadpacket), Counter())[outputs[0].dtype] += 1
        return result


class MasterWeightsNaive:
    """Trains a float16 model with float32 master weights and a loss scale, all by hand.

    The version to read; `autocast` with `LossScaler` does the same and keeps one copy of the weights, in
    float32. The masters w are what the optimizer updates: lr · g is often below half the gap between two
    float16 numbers (4.9e-4 just above 1), and float16 weights would never move. With s the scale:

        g = ∇(s · loss) / s, the gradient in float16, the division in float32
        w ← w − lr · g, if all of g is finite; then the model gets w rounded to float16

    The loop: `masters.backward(loss)`, `masters.unscale()`, clip `masters.parameters` if you clip,
    `masters.step(optimizer)`.

    Args:
        model: any module; its parameters become float16, in place.
        init_scale: s of the first step.
        growth_factor, backoff_factor, growth_interval: see `next_loss_scale`.
    Raises: InputError for numbers out of range.
    Source: Micikevicius et al. 2018, sections 3.1 and 3.2 (https://arxiv.org/abs/1710.03740).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        check_rule(init_scale, growth_factor, backoff_factor, growth_interval)
        self.parameters = [p.detach().float().clone() for p in model.parameters()]  # give to the optimizer
        self.scale, self.num_good, self.num_skipped = init_scale, 0, 0
        self._working = list(model.half().parameters())
        self._rule = {
            "growth_factor": growth_factor,
            "backoff_factor": backoff_factor,
            "growth_interval": growth_interval,
        }

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `scale` × loss to the float16 parameters' `p.grad`.

        Raises: InputError for a float16 loss. Its gradient, the scale itself, is infinite in float16 from
            65,520 on: compute the loss from `logits.float()`.
        """
        if loss.dtype == torch.float16:
            raise InputError(
                "a float16 loss does not carry the scale", fix="compute the loss from logits.float()"
            )
        (loss * self.scale).backward()

    def unscale(self) -> None:
        """Move the gradients to the masters, in float32 and without the scale."""
        for master, working in zip(self.parameters, self._working, strict=True):
            # To float32 first: divided in float16, what the scale had saved would become zero after all.
            master.grad = None if working.grad is None else working.grad.float() / self.scale
            working.grad = None

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Update masters and model unless a gradient overflowed; adapt the scale; return whether one did.

        Raises: InputError if the optimizer holds other parameters, or no master has a gradient: nothing would
            be trained.
        """
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if held.isdisjoint(map(id, self.parameters)):
            raise InputError("the optimizer holds no master weight", fix="make it of masters.parameters")
        if all(master.grad is None for master in self.parameters):
            raise InputError(
                "no master has a gradient", fix="call backward(loss), then unscale(), before step"
            )
        gradients = [master.grad for master in self.parameters if master.grad is not None]
        overflowed = not all(bool(gradient.isfinite().all()) for gradient in gradients)
        if overflowed:
            self.num_skipped += 1
        else:
            optimizer.step()
            with torch.no_grad():
                for master, working in zip(self.parameters, self._working, strict=True):
                    working.copy_(master)
        self.scale, self.num_good = next_loss_scale(
            self.scale, self.num_good, overflowed=overflowed, **self._rule
        )
        return overflowed
