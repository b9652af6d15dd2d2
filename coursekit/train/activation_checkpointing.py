"""Activation checkpointing: keep a layer's input, and compute what is inside again when backward needs it.

Memory for time: n layers then keep n inputs and, for a moment, the activations of one layer, instead of all
activations; the forward pass is computed once more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from coursekit.errors import InputError, check_whole
from coursekit.train.seed import get_rng_state, preserve_rng, set_rng_state

MATMUL_OPS = (
    "aten.mm",
    "aten.addmm",
    "aten.bmm",
    "aten.baddbmm",
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
)
"""The operations that take most of a forward pass's time: for `checkpoint_layers(..., save_ops=...)`."""


def recompute_naive(function: Callable[..., Tensor], *inputs: Tensor, keep_rng: bool = True) -> Tensor:
    """Return `function(*inputs)` without keeping its activations; backward computes them again.

    The version to read; `checkpoint_layers` does the same and more. It leaves out autocast (backward would
    recompute in other dtypes), keyword arguments, outputs other than one tensor, and `torch.autograd.grad`:
    its backward adds to the parameters' `p.grad` by itself.

    Args:
        function: a layer, as a rule.
        inputs: tensors; at least one of them requires a gradient.
        keep_rng: recompute from the random states of the forward pass. Without it dropout draws another mask,
            and the gradient is that of another network.
    Raises: InputError if no input requires a gradient: autograd would skip the layer, and its parameters
        would get none, in silence.
    Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost
        (https://arxiv.org/abs/1604.06174), section 4.

    >>> x = torch.tensor([0.0], requires_grad=True)
    >>> recompute_naive(lambda x: x.exp().sin(), x).backward()
    >>> x.grad == torch.cos(torch.ones(1))
    tensor([True])
    """
    if torch.is_grad_enabled() and not any(x.requires_grad for x in inputs):
        raise InputError(
            "no input requires a gradient, so backward would not reach the layer's parameters",
            fix="call x.requires_grad_() first, or leave the first layer as it is",
        )
    return _Recompute.apply(function, keep_rng, *inputs)


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], keep_rng: bool, *inputs: Tensor) -> Tensor:
        ctx.function, ctx.rng_state = function, get_rng_state() if keep_rng else None
        ctx.save_for_backward(*inputs)
        return function(*inputs)  # autograd records nothing in here

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # Detached: the graph made now must end at the inputs, and not run on into what came before.
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors]
        with preserve_rng(), torch.enable_grad():
            if ctx.rng_state is not None:
                set_rng_state(ctx.rng_state)
            output = ctx.function(*inputs)
        output.backward(grad_output)
        return None, None, *(x.grad for x in inputs)


class CheckpointedLayers:
    """The layers that `checkpoint_layers` changed; `remove()`, or the end of a `with`, changes them back."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self.layers = tuple(layers)

    def remove(self) -> None:
        """Let the layers keep their activations again.

        Raises: InputError if a layer was changed once more since, by `fully_shard` for one.
        """
        for layer in self.layers:
            if "_layer_class" not in vars(type(layer)):  # a class made from ours has it by inheritance only
                raise InputError(
                    "the layer is not as checkpoint_layers left it",
                    got=type(layer).__name__,
                    fix="remove the checkpointing before wrapping the layer again",
                )
        for layer in self.layers:
            layer.__class__ = type(layer)._layer_class
            del layer._checkpointing
        self.layers = ()

    def __enter__(self) -> CheckpointedLayers:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def checkpoint_layers(
    layers: Iterable[nn.Module],
    *,
    every: int = 1,
    save_ops: Collection[str] = (),
    preserve_rng_state: bool = True,
) -> CheckpointedLayers:
    """Make every `every`-th layer keep its input only, and recompute what is inside during backward.

    Changes the layers in place, by their class as `fully_shard` does: the names of parameters, the state
    dict, hooks and `isinstance` stay what they were. Gradients stay the same to the last bit where the
    layers are deterministic, and dropout draws the same masks again. Before DDP, FSDP or an optimizer, or
    after. Nothing is recomputed under `torch.no_grad`. `torch.utils.checkpoint` does the work, without
    re-entering autograd.

    What runs inside a layer runs twice: batch norm updates its running statistics twice a step, and hooks of
    modules inside are called twice. Numbers that it draws from Python's or NumPy's generators differ the
    second time; torch's are the same.

    Args:
        layers: modules, as a rule `model.layers`, the blocks of a transformer.
        every: 1 for all layers, 2 for the first, third, fifth and so on.
        save_ops: names of operations whose outputs are kept, inside the layers, and not computed again, such
            as `MATMUL_OPS`. `record_op_dtypes` tells by name which operations run.
        preserve_rng_state: False saves looking after random states, for layers that draw no numbers.

    Returns: the changed layers, with `remove()`; also a context manager that removes.
    Raises: InputError if there is no layer, a layer is checkpointed already, or torch has no such operation.
    Source: Chen et al. 2016 (https://arxiv.org/abs/1604.06174); Korthikanti et al. 2022, section 5, for
        keeping some operations (https://arxiv.org/abs/2205.05198).

    >>> model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3)))
    >>> len(checkpoint_layers(model, every=2).layers)
    2
    """
    check_whole("no such layers", every=every)
    if isinstance(save_ops, str):  # a collection too, of its letters
        raise InputError("one name is no collection", got=repr(save_ops), fix=f"give [{save_ops!r}]")
    chosen = _checked(layers)[::every]
    settings = _Settings(frozenset(map(_checked_op, save_ops)), preserve_rng_state)
    for layer in chosen:
        layer._checkpointing = settings
        layer.__class__ = _checkpointed_class(type(layer))
    return CheckpointedLayers(chosen)


@dataclass(frozen=True)
class _Settings:
    save_ops: frozenset[str]
    preserve_rng_state: bool


def _policy(save_ops: frozenset[str], _: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    is_saved = str(getattr(op, "overloadpacket", op)) in save_ops
    return CheckpointPolicy.MUST_SAVE if is_saved else CheckpointPolicy.PREFER_RECOMPUTE


class _Checkpointed:
    """Stands before a layer's class among its bases, so that `super()` is the layer as it was.

    A class, and not a function put in place of `layer.forward`: that function would hold the layer that holds
    it, a cycle that keeps a dropped model in memory, and a copy of the model would call the first one's.
    """

    _checkpointing: _Settings
    _layer_class: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer's own forward, under `checkpoint`."""
        settings, layer_forward = self._checkpointing, super().forward

        def run(*values: Any) -> Any:
            return layer_forward(*values[: len(args)], **dict(zip(kwargs, values[len(args) :], strict=True)))

        options: dict[str, Any] = {"preserve_rng_state": settings.preserve_rng_state}
        if settings.save_ops:  # a partial made here is what torch.compile can read; a method it cannot
            policy = functools.partial(_policy, settings.save_ops)
            options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, policy)
        # All by position: checkpoint looks for the device whose random state it keeps in these alone, and a
        # layer's keyword may have the name of one of its own.
        return checkpoint(run, *args, *kwargs.values(), use_reentrant=False, **options)

    def __reduce__(self) -> tuple:
        # Pickle finds classes by name, and this one's class has none.
        return _rebuild, (self._layer_class,), self.__dict__


@functools.cache  # one class for all layers of a kind, or torch.compile would compile each anew
def _checkpointed_class(layer_class: type[nn.Module]) -> type[nn.Module]:
    return type(
        f"Checkpointed{layer_class.__name__}", (_Checkpointed, layer_class), {"_layer_class": layer_class}
    )


def _rebuild(layer_class: type[nn.Module]) -> nn.Module:
    checkpointed = _checkpointed_class(layer_class)
    return checkpointed.__new__(checkpointed)


def _checked(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the layers as a list without repetition."""
    if isinstance(layers, nn.Module) and not hasattr(layers, "__iter__"):
        raise InputError(
            "one module is not a list of layers",
            got=type(layers).__name__,
            fix="give model.layers, or [layer]",
        )
    unique = list(dict.fromkeys(layers))
    if not unique:
        raise InputError("there is nothing to checkpoint", expected="at least one layer", got=0)
    for layer in unique:
        if not isinstance(layer, nn.Module):
            raise InputError("not a layer", expected="nn.Module", got=repr(layer))
        if isinstance(layer, _Checkpointed):
            raise InputError("a layer is checkpointed already", got=layer._layer_class.__name__)
        if "forward" in vars(layer):
            # It would be called instead of ours, and nothing be saved, in silence.
            raise InputError("something else has replaced a layer's forward", got=type(layer).__name__)
    return unique


def _checked_op(name: str) -> str:
    namespace, _, op = name.partition(".") if isinstance(name, str) else ("aten", "", "")
    # A name that no operation has would save nothing, in silence.
    if not hasattr(getattr(torch.ops, namespace), op or "?"):
        raise InputError(
            "torch has no such operation", expected="a name as 'aten.mm', without overload", got=name
        )
    return name
