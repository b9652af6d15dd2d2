"""A model cut into pipeline stages, of equal size or of balanced cost."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

from torch import nn

from coursekit.errors import InputError, check_whole
from coursekit.models import GPT


def balance_stages(costs: Sequence[float], num_stages: int) -> list[range]:
    """Return the layers of each stage, so that the most expensive stage costs as little as it can.

    The slowest stage sets the pace of all. Exact, in O(num_stages · n²) for n layers: with c(k, j) the
    least possible maximum of the first j layers in k stages,

        c(k, j) = min over i < j of max(c(k − 1, i), costs[i] + ... + costs[j − 1])

    Args:
        costs: of each layer in order, 0 or more, in any unit (seconds, FLOPs).
        num_stages: each gets one layer at least.
    Raises: InputError if there are fewer layers than stages, or a cost is negative or not finite.

    >>> balance_stages([1, 1, 1, 1, 4], 2)
    [range(0, 4), range(4, 5)]
    """
    check_whole("the layers do not fill the stages", num_stages=num_stages)
    if num_stages > len(costs):
        raise InputError("the layers do not fill the stages", expected=f"1 to {len(costs)}", got=num_stages)
    if strange := [cost for cost in costs if not 0 <= cost < math.inf]:
        raise InputError("no cost", expected="finite costs, 0 or more", got=strange[0])
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    best: list[float] = list(total)
    cuts: list[list[int]] = []
    for stage in range(1, num_stages):
        before, best, cut = best, [float("inf")] * len(total), [0] * len(total)
        for end in range(stage + 1, len(total)):
            options = ((max(before[i], total[end] - total[i]), i) for i in range(stage, end))
            best[end], cut[end] = min(options)
        cuts.append(cut)
    ends = [len(costs)]
    for cut in reversed(cuts):
        ends.insert(0, cut[ends[0]])
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def split_into_stages(
    model: nn.Module, num_stages: int, *, costs: Sequence[float] | None = None
) -> list[nn.Module]:
    """Return the model cut into stages, which applied one after the other are the model.

    They share the model's parameters, under the model's own names. For a model too large for one process,
    build it under `torch.device("meta")`, cut it, and give memory to this rank's stage alone
    (`to_empty`, then load or draw the weights).

    Args:
        model: a `GPT` or an `nn.Sequential`. The first stage of a GPT has its embeddings, the last its final
            norm and head.
        num_stages: number of ranks, times stages a rank for interleaved schedules.
        costs: of each layer of an `nn.Sequential`; of a GPT's embeddings, then of each block, then of norm
            and head together. Stages are then cut by `balance_stages`. None gives every stage
            equally many layers or blocks.
    Raises: InputError if the layers do not divide, stages share a parameter, or the model is another one.
    """
    if not isinstance(model, (GPT, nn.Sequential)):
        raise InputError(
            "this model cannot be cut", expected="GPT or nn.Sequential", got=type(model).__name__
        )
    num_layers = len(model.blocks) + 2 if isinstance(model, GPT) else len(model)
    if costs is not None and len(costs) != num_layers:
        raise InputError("not one cost a layer", expected=f"{num_layers} costs", got=len(costs))
    if costs is not None:
        parts = balance_stages(costs, num_stages)
    elif isinstance(model, GPT):
        shares = _equal_parts(len(model.blocks), num_stages)
        # Two more layers than blocks: the embeddings come before the first block, the head after the last.
        starts = [0, *(part.start + 1 for part in shares[1:]), num_layers]
        parts = [range(start, end) for start, end in itertools.pairwise(starts)]
    else:
        parts = _equal_parts(num_layers, num_stages)
    cut = _gpt_stage if isinstance(model, GPT) else _sequential_stage
    stages = [cut(model, part) for part in parts]
    _check_not_shared(stages)
    return stages


def _equal_parts(num_layers: int, num_stages: int) -> list[range]:
    check_whole("no such stages", num_stages=num_stages)
    if num_layers % num_stages:
        divisors = [n for n in range(1, num_layers + 1) if num_layers % n == 0]
        raise InputError(
            "the layers do not divide into stages of equal size",
            expected=f"num_stages of {', '.join(map(str, divisors))} for {num_layers} layers",
            got=num_stages,
            fix="or pass costs, and stages may differ in size",
        )
    size = num_layers // num_stages
    return [range(start, start + size) for start in range(0, num_layers, size)]


def _gpt_stage(model: GPT, part: range) -> GPT:
    """Return a GPT with those layers alone: 0 is the embeddings, the last is the final norm and the head."""
    stage = _shallow_copy(model)
    if 0 not in part:
        stage.token_embedding = stage.position_embedding = None
    if len(model.blocks) + 1 not in part:
        stage.final_norm = stage.lm_head = None
    # None in the place of the others: what stays keeps its index, and so its name in the state dict.
    stage.blocks = nn.ModuleList(
        block if index + 1 in part else None for index, block in enumerate(model.blocks)
    )
    return stage


def _sequential_stage(model: nn.Sequential, part: range) -> nn.Sequential:
    stage = nn.Sequential()
    for index, (name, layer) in enumerate(model.named_children()):
        if index in part:
            stage.add_module(name, layer)
    return stage


def _shallow_copy(model: GPT) -> GPT:
    """Return a module with the same children, whose own attributes can be replaced."""
    stage = copy.copy(model)
    stage._modules = dict(model._modules)  # copy.copy leaves both with one dict
    return stage


def _check_not_shared(stages: Sequence[nn.Module]) -> None:
    owner: dict[int, tuple[int, str]] = {}
    for index, stage in enumerate(stages):
        for name, parameter in stage.named_parameters():
            other, other_name = owner.setdefault(id(parameter), (index, name))
            if other != index:
                raise InputError(
                    f"stages {other} and {index} share a parameter, {other_name} and {name}",
                    fix="on two ranks it would be two: use tie_embeddings=False, or give one stage a copy",
                )
