"""Pipeline parallelism to read: GPipe with activations and gradients sent by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

Group = dist.ProcessGroup | None


def gpipe_step_naive(
    stage: nn.Module,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    *,
    loss_sum: Callable[[Tensor, Tensor], Tensor],
    num_valid: int,
    hidden_shape: Sequence[int],
    group: Group = None,
) -> Tensor | None:
    """Add the gradient of the mean loss to every `p.grad` of this rank's stage; return that mean.

    The version to read; `make_schedule` does the same and more, and computes while it sends. Every forward
    pass comes before every backward pass, so all activations are stored at once.

    Args:
        stage: this rank's part of the model, as in `split_into_stages(model, num_ranks)[rank]`. All
            parameters of a stage have one dtype, which is that of the activations.
        micro_batches: (inputs, targets), the same on every rank; sizes may differ. The first rank reads
            the inputs, the last one the targets, all of them the number of rows.
        loss_sum: maps (output, targets) to the loss *summed* over valid items, a scalar.
        num_valid: valid items of all micro-batches together.
        hidden_shape: of what a stage hands to the next, without the rows: (t, d) for a GPT.
        group: the pipeline's ranks; None is all.

    Returns: the mean loss per valid item, detached; None on all ranks but the last.
    Source: Huang et al. 2019, GPipe, section 2.2 (https://arxiv.org/abs/1811.06965).
    """
    rank, last = dist.get_rank(group), dist.get_world_size(group) - 1
    like = next(stage.parameters())
    received, sent, losses = [], [], []
    for inputs, targets in micro_batches:
        if rank > 0:
            inputs = like.new_empty(len(inputs), *hidden_shape)
            dist.recv(inputs, group=group, group_src=rank - 1)
            inputs.requires_grad_()  # a leaf here: the graph ends at the border between two processes
        output = stage(inputs)
        if rank < last:
            dist.send(output.detach().contiguous(), group=group, group_dst=rank + 1)
        else:
            output = loss_sum(output, targets) / num_valid  # the whole batch's count, not the micro-batch's
            losses.append(output.detach())
        received.append(inputs)
        sent.append(output)
    for inputs, output in zip(received, sent, strict=True):
        gradient = None  # of the loss itself: 1
        if rank < last:
            gradient = torch.empty_like(output)
            dist.recv(gradient, group=group, group_src=rank + 1)
        output.backward(gradient)  # through the graph that the forward pass left in this process
        if rank > 0:
            dist.send(inputs.grad, group=group, group_dst=rank - 1)
    return torch.stack(losses).sum() if rank == last else None
