"""Context parallelism: every rank holds the whole model and a part of each sequence."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed import _functional_collectives as functional  # all_to_all_single with a gradient
from torch.distributed.device_mesh import DeviceMesh

from coursekit.errors import InputError, check_whole
from coursekit.models import GPT, causal_attention
from coursekit.parallel._sequence_layout import chunk_ids
from coursekit.parallel.conjugate_operators import gather_sequence
from coursekit.parallel.mesh import one_axis
from coursekit.parallel.ring import ring_attention

Group = dist.ProcessGroup
Method = Literal["ring", "gather", "ulysses"]


def sequence_indices(
    seq_len: int, *, cp_rank: int, cp_size: int, zigzag: bool = False, device: torch.device | str = "cpu"
) -> Int[Tensor, " s"]:
    """Return the positions, in the whole sequence, of the tokens that rank `cp_rank` of N holds.

    They pick the rank's part, and are the positions that the model must be given:

        mine = sequence_indices(t, cp_rank=..., cp_size=...)
        logits = model(input_ids[:, mine], positions=mine)

    Take `labels[:, mine]` of labels that were shifted before: shifted afterwards, the last token of every
    part has lost its target.

    Args:
        seq_len: t, a multiple of N, with `zigzag` of 2 N.
        cp_rank: which part.
        cp_size: N.
        zigzag: chunks r and 2 N - 1 - r of 2 N instead of one contiguous part; see `ring_attention`.
        device: of the result: the model's.
    Raises: InputError if the sequence does not divide.

    >>> [sequence_indices(8, cp_rank=r, cp_size=2).tolist() for r in range(2)]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    >>> [sequence_indices(8, cp_rank=r, cp_size=2, zigzag=True).tolist() for r in range(2)]
    [[0, 1, 6, 7], [2, 3, 4, 5]]
    """
    check_whole("no sequence", seq_len=seq_len)
    chunks = chunk_ids(cp_rank=cp_rank, cp_size=cp_size, zigzag=zigzag)
    num_chunks = len(chunks) * cp_size
    if seq_len % num_chunks:
        raise InputError(
            "the sequence does not divide among the ranks",
            expected=f"a multiple of {num_chunks}, as {seq_len + -seq_len % num_chunks} is",
            got=f"{seq_len} tokens",
            fix="pad it, with labels of IGNORE_INDEX",
        )
    length = seq_len // num_chunks
    parts = [torch.arange(chunk * length, (chunk + 1) * length, device=device) for chunk in chunks]
    return torch.cat(parts)


def context_parallelize(
    model: GPT, mesh: DeviceMesh, *, method: Method = "ring", zigzag: bool = False
) -> GPT:
    """Let the attention of `model` see the tokens of all ranks of `mesh`, in place; return it.

    Everything but attention works on each token by itself, and needs nothing. The ranks' gradients are
    those of other tokens, as under data parallelism: average them over the mesh, or over the merged axes
    dp and cp (`merge_axes`), with `average_gradients`. Where sequences are padded, the last ranks have
    fewer targets than the first: give it `num_valid`, or the average is a mean of means.

    The model then refuses to run without `positions`: counted from 0 on every rank, embeddings and rotary
    angles would be those of the first part. On a CPU it also refuses those of another division than its own,
    whose tokens would see others than they should; a GPU is not waited for.

    Args:
        model: the same on every rank; divided by tensors before, if it is at all.
        mesh: one axis, the context-parallel one: `make_mesh(cp=2)["cp"]`.
        method: "ring", see `ring_attention`: any number of ranks. "ulysses", see `ulysses_attention`: up to
            n_kv_heads ranks, with torch's fused kernels. "gather", see `gather_attention`: the one to read.
        zigzag: whether `sequence_indices` was told so. Not with "ulysses", whose load is even.
    Raises: InputError for an unknown method, zigzag with "ulysses", or another model than a GPT.
    Source: Jacobs et al. 2023 (https://arxiv.org/abs/2309.14509); Liu et al. 2023
        (https://arxiv.org/abs/2310.01889).
    """
    one_axis(mesh, "cp")
    if not isinstance(model, GPT):
        raise InputError("this model's attention is not known", expected="GPT", got=type(model).__name__)
    functions = {"ring": ring_attention, "gather": gather_attention, "ulysses": ulysses_attention}
    if method not in functions:
        raise InputError("no such method", expected=", ".join(functions), got=repr(method))
    options: dict[str, Any] = {"group": mesh.get_group()}
    if method != "ulysses":
        options["zigzag"] = zigzag
    elif zigzag:
        raise InputError("ulysses has whole sequences", expected="zigzag=False", got=True)
    for block in model.blocks:
        if block is not None:
            block.attention.attend = partial(functions[method], **options)
    check = partial(_check_positions, group=mesh.get_group(), zigzag=zigzag)
    model.register_forward_pre_hook(check, with_kwargs=True)
    return model


def gather_attention(
    q: Float[Tensor, "b h s k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    *,
    group: Group,
    zigzag: bool = False,
    dropout_p: float = 0.0,
) -> Float[Tensor, "b h s k"]:
    """Return causal attention of this rank's queries over the whole sequence, whose keys are gathered.

    The version to read. Every rank holds all keys and values of the layer, t of them, and with grouped
    heads these are few: Llama 3 was trained this way. An all-gather of 2 b g t k numbers in the forward
    pass, a reduce-scatter of as many in the backward pass.

    Args:
        q: this rank's queries of h heads.
        k: its keys of g heads, where g divides h.
        v: its values.
        group: the context-parallel ranks.
        zigzag: how the sequence is divided, as given to `sequence_indices`.
        dropout_p: probability that a weight is dropped.
    Source: Grattafiori et al. 2024, section 3.3.2 (https://arxiv.org/abs/2407.21783).
    """
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    place = partial(sequence_indices, size * q.shape[2], cp_size=size, zigzag=zigzag, device=q.device)
    positions = [place(cp_rank=other) for other in range(size)]
    sees = positions[rank].unsqueeze(1) >= torch.cat(positions)
    k, v = (gather_sequence(x, group, dim=2) for x in (k, v))
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=sees, dropout_p=dropout_p, enable_gqa=q.shape[1] != k.shape[1]
    )


def ulysses_attention(
    q: Float[Tensor, "b h s k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    *,
    group: Group,
    dropout_p: float = 0.0,
) -> Float[Tensor, "b h s k"]:
    """Return causal attention of this rank's queries over the whole sequence, computed by heads.

    An all-to-all gives each rank the whole sequence of h / N heads, on which attention is what it is on one
    process; another one gives the results back. Of (2 h + 2 g) b s k numbers, those of q, k, v and the
    result, a rank sends the share (N - 1) / N, in the forward pass and again in the backward pass. For a
    given t = N s that falls as 1 / N, where a ring's 2 g b s k (N - 1) stays: fewer bytes if N > (h + g) / g.

    Args:
        q: this rank's queries of h heads, a contiguous part of the sequence.
        k: its keys of g heads, where g divides h, and N divides g.
        v: its values.
        group: the context-parallel ranks.
        dropout_p: probability that a weight is dropped.
    Raises: InputError if the heads do not divide.
    Source: Jacobs et al. 2023, DeepSpeed-Ulysses, section 3 (https://arxiv.org/abs/2309.14509).
    """
    size = dist.get_world_size(group)
    for name, num_heads in (("key heads", k.shape[1]), ("query heads", q.shape[1])):
        if num_heads % size:
            raise InputError(
                f"the {name} do not divide among the context-parallel ranks",
                expected=f"a multiple of {size}",
                got=num_heads,
                fix=f'use cp={math.gcd(num_heads, size)}, or method="ring"',
            )
    q, k, v = (_heads_for_sequence(x, group) for x in (q, k, v))
    return _sequence_for_heads(causal_attention(q, k, v, dropout_p=dropout_p), group)


def _heads_for_sequence(x: Tensor, group: Group) -> Tensor:
    """Return all heads of a part of the sequence (b, h, s, k) as some heads of all of it (b, h/N, t, k)."""
    by_rank = x.unflatten(1, (dist.get_world_size(group), -1)).movedim(1, 0)  # (N, b, h/N, s, k)
    return _all_to_all(by_rank, group).movedim(0, 2).flatten(2, 3)


def _sequence_for_heads(x: Tensor, group: Group) -> Tensor:
    by_rank = x.unflatten(2, (dist.get_world_size(group), -1)).movedim(2, 0)
    return _all_to_all(by_rank, group).movedim(0, 1).flatten(1, 2)


def _all_to_all(x: Tensor, group: Group) -> Tensor:
    """Return what the ranks have for this one, stacked along dim 0, as what this one has for them is in x."""
    return functional.all_to_all_single(x.contiguous(), None, None, group)


def _check_positions(
    module: nn.Module, args: tuple, kwargs: dict[str, Any], *, group: Group, zigzag: bool
) -> None:
    if kwargs.get("positions") is None:
        raise InputError(
            "a context-parallel model was not told which positions its tokens have",
            fix="call model(input_ids[:, mine], positions=mine), with mine from sequence_indices",
        )
    positions = kwargs["positions"]
    if positions.device.type != "cpu" or not len(positions):
        return
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    own = sequence_indices(size * len(positions), cp_rank=rank, cp_size=size, zigzag=zigzag)
    if not torch.equal(positions, own):
        raise InputError(
            "the tokens are not divided as the model's attention takes them to be",
            expected=f"positions {own.tolist()[:8]}",
            got=positions.tolist()[:8],
            fix=f"take them from sequence_indices with zigzag={zigzag}, as context_parallelize was told",
        )
