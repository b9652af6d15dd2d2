"""Ring attention: keys and values travel round the ranks, and each adds what its queries see of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from coursekit.errors import InputError
from coursekit.parallel._sequence_layout import chunk_ids

Group = dist.ProcessGroup


def ring_attention(
    q: Float[Tensor, "b h s k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    *,
    group: Group,
    zigzag: bool = False,
    dropout_p: float = 0.0,
) -> Float[Tensor, "b h s k"]:
    """Return causal attention of this rank's queries over the whole sequence, divided among N ranks.

    In step i a rank holds the keys and values of the rank i places before it, sends them on, and meanwhile
    computes its queries' attention O_i over them with L_i = log Σ exp(scores). Two such parts make one:

        L = log(exp L_1 + exp L_2),    O = O_1 exp(L_1 - L) + O_2 exp(L_2 - L)

    The backward pass computes the weights again, exp(scores - L), while K and V go round once more, and
    their gradients with them. Of keys and values a rank holds its own, those at work and those that arrive,
    never the whole sequence's.

    A causal mask leaves the first of contiguous parts with little to do: rank r computes r + 1 blocks of N.
    With `zigzag` the sequence is cut into 2 N chunks and rank r has chunks r and 2 N - 1 - r, so that all
    compute as much.

    With t = N s tokens a rank sends 2 b g s k numbers N - 1 times in the forward pass and 2 N - 1 times,
    of which N are gradients, in the backward pass.

    Scores are computed by plain matrix products, (s, s) of each head at a time, or with `zigzag` a quarter
    of that; in float32 where q and k have fewer bits, as fused kernels do. torch's own ring,
    `torch.distributed.tensor.experimental.context_parallel`, has fused kernels for CUDA, and none for the CPU
    as of torch 2.13.

    Args:
        q: this rank's queries of h heads.
        k: its keys of g heads, where g divides h.
        v: its values.
        group: the context-parallel ranks.
        zigzag: how the sequence is divided, as given to `sequence_indices`.
        dropout_p: must be 0: a mask of dropout would have to travel as well.
    Raises: InputError for dropout, an odd number of positions with `zigzag`, or q, k and v that do not fit.
    Source: Liu et al. 2023, Ring Attention, algorithm 1 (https://arxiv.org/abs/2310.01889); Dao 2023,
        FlashAttention-2, section 3.1 (https://arxiv.org/abs/2307.08691), for the merging; Brandon et al.
        2023, Striped Attention (https://arxiv.org/abs/2311.09431), for the imbalance; Grattafiori et al.
        2024, section 3.3.2 (https://arxiv.org/abs/2407.21783), for the 2 N chunks.
    """
    if dropout_p:
        raise InputError("ring attention has no dropout", expected="dropout_p=0", got=dropout_p)
    if zigzag and q.shape[2] % 2:
        raise InputError("zigzag needs two chunks a rank", expected="an even length", got=q.shape[2])
    if k.shape != v.shape or q.shape[2] != k.shape[2] or q.shape[1] % k.shape[1]:
        raise InputError(
            "queries, keys and values do not fit",
            expected="as many positions, heads of k and v that divide those of q",
            got=" and ".join(str(tuple(x.shape)) for x in (q, k, v)),
        )
    return _RingAttention.apply(q, k, v, group, zigzag)


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, group: Group, zigzag: bool) -> Tensor:
        grouped = _group_heads(q, k)
        # Parts are merged N times: in half precision each time would round what is there.
        y = torch.zeros_like(grouped, dtype=torch.promote_types(q.dtype, torch.float32))
        lse = y.new_full((*y.shape[:-1], 1), -torch.inf)
        for source, (keys, values) in _travel([k, v], group):
            for mine, theirs, is_diagonal in _visible_chunks(source, group, q.shape[2], zigzag):
                part = _attend(grouped[..., mine, :], keys[:, :, theirs], values[:, :, theirs], is_diagonal)
                y[..., mine, :], lse[..., mine, :] = _merge(y[..., mine, :], lse[..., mine, :], *part)
        ctx.group, ctx.zigzag = group, zigzag
        ctx.save_for_backward(q, k, v, y, lse)
        return y.flatten(1, 2).type_as(q)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, y, lse = ctx.saved_tensors
        grouped, grad = _group_heads(q, k), _group_heads(grad, k)
        inner = (grad * y).sum(-1, keepdim=True)  # Σ_j p_j dp_j of each query, which softmax subtracts
        grad_q, grad_kv = torch.zeros_like(y), y.new_zeros((2, *k.shape))
        for source, (keys, values) in _travel([k, v], ctx.group):
            for mine, theirs, is_diagonal in _visible_chunks(source, ctx.group, q.shape[2], ctx.zigzag):
                queries, grad_y = grouped[..., mine, :], grad[..., mine, :]
                scores = _scores(queries, keys[:, :, theirs], is_diagonal)
                weights = (scores - lse[..., mine, :]).exp()
                grad_weights = grad_y @ values[:, :, None, theirs].mT
                grad_scores = weights * (grad_weights - inner[..., mine, :]) / math.sqrt(q.shape[-1])
                grad_scores, weights = grad_scores.type_as(q), weights.type_as(q)
                grad_q[..., mine, :] += grad_scores @ keys[:, :, None, theirs]
                grad_kv[0][:, :, theirs] += (grad_scores.mT @ queries).sum(2)  # of the heads that share it
                grad_kv[1][:, :, theirs] += (weights.mT @ grad_y).sum(2)
            # The gradients follow their keys; after the last step they are one hop from home.
            grad_kv = _wait(_send_on([grad_kv], ctx.group))[0]
        grad_k, grad_v = grad_kv.type_as(q)
        return grad_q.flatten(1, 2).type_as(q), grad_k, grad_v, None, None


def _attend(q: Tensor, k: Tensor, v: Tensor, is_diagonal: bool) -> tuple[Tensor, Tensor]:
    """Return attention over these keys alone, and the logarithm of the sum of its exponentials."""
    scores = _scores(q, k, is_diagonal)
    lse = scores.logsumexp(-1, keepdim=True)
    return (scores - lse).exp().type_as(v) @ v.unsqueeze(2), lse


def _merge(y: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.logaddexp(lse, other_lse)
    return y * (lse - both).exp() + other * (other_lse - both).exp(), both


def _scores(q: Tensor, k: Tensor, is_diagonal: bool) -> Tensor:
    # Before the product: a score of 30 in bfloat16 is off by up to 0.06, and its weight by 6 %.
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).unsqueeze(2).mT / math.sqrt(q.shape[-1])
    if is_diagonal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores


def _group_heads(q: Tensor, k: Tensor) -> Tensor:
    """Return q (b, h, s, k) as (b, g, h / g, s, k): neighbouring heads share a key head."""
    return q.unflatten(1, (k.shape[1], -1))


def _visible_chunks(
    source: int, group: Group, part_len: int, zigzag: bool
) -> Iterator[tuple[slice, slice, bool]]:
    """Yield where this rank's queries and the source's keys meet, and whether they are the same chunk."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    mine = chunk_ids(cp_rank=rank, cp_size=size, zigzag=zigzag)
    theirs = chunk_ids(cp_rank=source, cp_size=size, zigzag=zigzag)
    length = part_len // len(mine)
    for i, query_chunk in enumerate(mine):
        for j, key_chunk in enumerate(theirs):
            if key_chunk <= query_chunk:  # a later chunk is masked as a whole
                yield (
                    slice(i * length, (i + 1) * length),
                    slice(j * length, (j + 1) * length),
                    key_chunk == query_chunk,
                )


def _travel(tensors: list[Tensor], group: Group) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield every rank of the group with its tensors, this one first; they move on while the caller works."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    for step in range(size):
        is_last = step == size - 1
        underway = None if is_last else _send_on(tensors, group)
        yield (rank - step) % size, tensors
        tensors = tensors if underway is None else _wait(underway)


def _send_on(tensors: list[Tensor], group: Group) -> tuple[list[Tensor], list[Any], list[Tensor]]:
    """Start to send tensors to the next rank, and to receive the previous one's."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    if size == 1:
        return tensors, [], tensors
    following = dist.get_global_rank(group, (rank + 1) % size)
    previous = dist.get_global_rank(group, (rank - 1) % size)
    sent = [tensor.contiguous() for tensor in tensors]
    received = [torch.empty_like(tensor) for tensor in sent]
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(operation, tensor, peer, group=group)
            for operation, peer, batch in ((dist.isend, following, sent), (dist.irecv, previous, received))
            for tensor in batch
        ]
    )
    return received, works, sent  # what is being sent must stay alive


def _wait(underway: tuple[list[Tensor], list[Any], list[Tensor]]) -> list[Tensor]:
    received, works, _ = underway
    for work in works:
        work.wait()
    return received
