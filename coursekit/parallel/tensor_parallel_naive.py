"""Tensor parallelism written out: every rank holds a part of each matrix. The version to read;
`tensor_parallelize` is the one to use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from coursekit.errors import InputError
from coursekit.models import GPT
from coursekit.parallel.conjugate_operators import (
    copy_to_ranks,
    gather_sequence,
    scatter_sequence,
    split_sequence,
    sum_over_ranks,
    take_part,
)
from coursekit.parallel.tensor_parallel import check_divides, check_sequence, check_whole

Group = dist.ProcessGroup


class ColumnParallelLinear(nn.Module):
    """Outputs of a linear layer, divided among the ranks: Y_r = X A_r + b_r, with A = [A_1 … A_N].

    The input, the same on all ranks, must have come through `copy_to_ranks` or `gather_sequence`: once for
    all layers that read it (q, k and v), which saves an all-reduce for each of the others.

    torch keeps Aᵀ as `weight` (out, in): the columns of A are its rows. The whole layer is drawn and then
    divided: a part drawn by itself would take the part's width for the layer's, and its scale from that.

    If its input comes divided, a layer can gather it and be column-parallel, d_in (N - 1) / N numbers a
    token, or be row-parallel and sum the output, 2 d_out (N - 1) / N: gathering wins where d_in < 2 d_out. A
    row-parallel layer after a column-parallel one takes its output as it is, and nothing is gathered.

    Args:
        linear: the whole layer, the same on all ranks.
        group: the tensor-parallel ranks.
    """

    def __init__(self, linear: nn.Linear, group: Group) -> None:
        super().__init__()
        self.weight = nn.Parameter(take_part(linear.weight.detach(), group, dim=0))
        self.bias = (
            None if linear.bias is None else nn.Parameter(take_part(linear.bias.detach(), group, dim=0))
        )

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t part"]:
        """Return this rank's part of the outputs."""
        return F.linear(x, self.weight, self.bias)


class RowParallelLinear(nn.Module):
    """A linear layer whose inputs are divided among the ranks: Y = Σ_r X_r A_r + b.

    The bias is added once, after the sum: added before, it would count N times.

    Args:
        linear: the whole layer, the same on all ranks.
        group: the tensor-parallel ranks.
        leave: what makes the sum: `sum_over_ranks`, or `scatter_sequence`.
    """

    def __init__(self, linear: nn.Linear, group: Group, *, leave: Callable = sum_over_ranks) -> None:
        super().__init__()
        self.weight = nn.Parameter(take_part(linear.weight.detach(), group, dim=1))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
        self.group, self.leave = group, leave

    def forward(self, x: Float[Tensor, "b t part"]) -> Float[Tensor, "b s d"]:
        """Return the whole outputs: of all positions, or with `scatter_sequence` of this rank's."""
        y = self.leave(F.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias


class VocabParallelEmbedding(nn.Module):
    """An embedding whose rows, the vocabulary, are divided among the ranks.

    A rank looks up the ids that it holds, has zeros for the others, and the sum over ranks is the lookup.

    Args:
        embedding: the whole table, the same on all ranks.
        group: the tensor-parallel ranks.
    Raises: InputError if the rows do not divide; on a CPU also for an id that no rank holds.
    """

    def __init__(self, embedding: nn.Embedding, group: Group) -> None:
        super().__init__()
        self.weight = nn.Parameter(take_part(embedding.weight.detach(), group, dim=0))
        self.group = group

    def forward(self, input_ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return the embeddings of all ids, on every rank."""
        local_ids, is_here = _local_ids(input_ids, len(self.weight), self.group)
        found = F.embedding(local_ids, self.weight).masked_fill(~is_here.unsqueeze(-1), 0)
        return sum_over_ranks(found, self.group)


def vocab_parallel_cross_entropy(
    logits: Float[Tensor, "... part"],
    labels: Int[Tensor, ...],
    *,
    group: Group,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, ""]:
    """Return the cross-entropy of logits whose vocabulary is divided among the ranks, the same on each.

    With z_j the logit of token j and y the label, per token

        loss = log Σ_j exp(z_j - m) - (z_y - m),    m = max_j z_j

    Three numbers a token are all-reduced, m, the sum and z_y, where gathering the logits takes
    v · (N - 1) / N.

    Args:
        logits: z, this rank's part of the vocabulary in the last dim.
        labels: y, ids in the whole vocabulary, the same on all ranks.
        group: the tensor-parallel ranks.
        ignore_index: label of a position without a target.
        reduction: "mean" over the valid labels, or "sum"; nats.
    Raises: InputError for another reduction, and on a CPU for a label outside the vocabulary.
    Source: Shoeybi et al. 2019, Megatron-LM, section 3 (https://arxiv.org/abs/1909.08053).
    """
    if reduction not in ("mean", "sum"):
        raise InputError("unknown reduction", expected="'mean' or 'sum'", got=repr(reduction))
    highest = logits.detach().amax(-1)
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)  # m cancels: it needs no gradient
    shifted = logits - highest.unsqueeze(-1)
    total = sum_over_ranks(shifted.exp().sum(-1), group)
    is_valid = labels != ignore_index
    local_ids, is_here = _local_ids(labels.where(is_valid, 0), logits.shape[-1], group)
    picked = shifted.gather(-1, local_ids.unsqueeze(-1)).squeeze(-1).masked_fill(~is_here, 0)
    loss = (total.log() - sum_over_ranks(picked, group)).masked_fill(~is_valid, 0).sum()
    return loss / is_valid.sum() if reduction == "mean" else loss


def tensor_parallelize_naive(model: GPT, group: Group, *, sequence_parallel: bool = False) -> GPT:
    """Divide the matrices of `model` among the ranks of `group`, in place; return it.

    Its logits are then a part of the vocabulary: use `vocab_parallel_cross_entropy`. A block communicates
    b · t · d numbers four times a step: summed after attention and after the feed-forward layer in the
    forward pass (g), and before each of them in the backward pass (f). Heads stay whole, so attention
    itself needs no communication.

    Norms and the biases of row-parallel layers are on every rank. Without sequence parallelism all ranks
    compute their gradients whole and alike. With it each has those of its positions: call
    `sum_sequence_parallel_gradients` after the backward pass, or the copies drift apart.

    Args:
        model: whole, on every rank the same; its dropout the same too, by an equal seed.
        group: the tensor-parallel ranks.
        sequence_parallel: divide also what stands between the matrices, along the sequence.
    Raises: InputError if heads, widths or vocabulary do not divide, or the model is not whole.
    Source: Shoeybi et al. 2019, section 3; Korthikanti et al. 2022, section 4.2.
    """
    check_divides(model, dist.get_world_size(group))
    check_whole(model, fix="use tensor_parallelize for a stage")
    enter, leave = (
        (gather_sequence, scatter_sequence) if sequence_parallel else (copy_to_ranks, sum_over_ranks)
    )
    for block in model.blocks:
        attention, feed_forward = block.attention, block.feed_forward
        for layer, name in [
            *((attention, name) for name in ("q_proj", "k_proj", "v_proj")),
            *((feed_forward, name) for name in ("up_proj", "gate_proj") if hasattr(feed_forward, name)),
        ]:
            setattr(layer, name, ColumnParallelLinear(getattr(layer, name), group))
        attention.o_proj = RowParallelLinear(attention.o_proj, group, leave=leave)
        feed_forward.down_proj = RowParallelLinear(feed_forward.down_proj, group, leave=leave)
        _pass_input_through(attention, enter, group)
        _pass_input_through(feed_forward, enter, group)
    if sequence_parallel:
        _pass_input_through(model.blocks[0], _split_sequence, group)
    is_tied = model.lm_head.weight is model.token_embedding.weight
    model.token_embedding = VocabParallelEmbedding(model.token_embedding, group)
    model.lm_head = ColumnParallelLinear(model.lm_head, group)
    if is_tied:
        model.lm_head.weight = model.token_embedding.weight
    _pass_input_through(model.lm_head, enter, group)
    return model


@torch.no_grad()
def sum_sequence_parallel_gradients(model: GPT, group: Group) -> None:
    """Replace the gradients of norms and row-parallel biases by their sum over the ranks of `group`.

    Under sequence parallelism a rank sees a part of the positions, so it has a part of the sum over
    positions that these gradients are.
    """
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith(("o_proj.bias", "down_proj.bias")):
            dist.all_reduce(parameter.grad, group=group)


def _pass_input_through(module: nn.Module, function: Callable, group: Group) -> None:
    module.register_forward_pre_hook(lambda _, inputs: (function(inputs[0], group), *inputs[1:]))


def _split_sequence(x: Tensor, group: Group) -> Tensor:
    check_sequence(x.shape[1], dist.get_world_size(group))
    return split_sequence(x, group)


def _local_ids(ids: Tensor, part: int, group: Group) -> tuple[Tensor, Tensor]:
    """Return ids counted from this rank's first, 0 for those of other ranks, and whether they are here."""
    # Else every rank has zeros for it. A GPU would have to be waited for.
    vocab_size = part * dist.get_world_size(group)
    if ids.device.type == "cpu" and ids.numel() and not 0 <= ids.min() <= ids.max() < vocab_size:
        got = f"{ids.min().item()} to {ids.max().item()}"
        raise InputError("no rank holds this token", expected=f"0 to {vocab_size - 1}", got=got)
    local = ids - part * dist.get_rank(group)
    is_here = (0 <= local) & (local < part)
    return local.where(is_here, 0), is_here
