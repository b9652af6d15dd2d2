"""Tensor parallelism: every rank holds a part of each matrix, and all work on the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from coursekit.errors import InputError
from coursekit.models import GPT, FeedForward
from coursekit.parallel.mesh import one_axis


def tensor_parallelize(
    model: GPT, mesh: DeviceMesh, *, sequence_parallel: bool = False, loss_parallel: bool = False
) -> GPT:
    """Divide the matrices of `model` among the ranks of `mesh`, in place; return it.

    Its parameters become DTensors, all of them, so torch's optimizers and `clip_grad_norm_` treat the
    parts as what they are. Make the optimizer afterwards. Inputs are the same on all ranks, and so are
    logits, loss and the gradients of what is not divided.

    Column-parallel are q, k, v, up and gate (each rank has whole heads); row-parallel are o and down; the
    vocabulary is divided in embedding and head. With b · t tokens of width d a block communicates b · t · d
    numbers four times a step, by all-reduce: after attention and after the feed-forward layer in the
    forward pass, before each in the backward pass. The embedding adds one in the forward pass, the head one
    in the backward pass.

    With `sequence_parallel` what stands between the matrices (norms, dropout, the residual stream) is
    divided along the sequence, in 1/N of the memory: each all-reduce becomes a reduce-scatter and an
    all-gather, which together send as many bytes. (The gathered inputs of the matrices are kept for the
    backward pass; the paper gathers them a second time.) The gradients of norms then are sums over
    ranks, of d numbers each; without it they need no communication.

    Dropout draws from torch's generator on each rank: seed the ranks of a mesh alike, or the copies of the
    residual stream differ. Heads, or with `sequence_parallel` parts of the sequence, of different ranks
    then drop at the same places.

    Args:
        model: the same on every rank, on the mesh's device; or a stage of a pipeline, with parts left out.
        mesh: one axis, the tensor-parallel one: `make_mesh(tp=2)["tp"]`.
        sequence_parallel: see above. The model must be whole, and sequences divide by the mesh's size.
        loss_parallel: leave the logits divided by vocabulary. Then loss and backward pass belong inside
            `with torch.distributed.tensor.parallel.loss_parallel()`, which saves gathering b · t · v
            numbers.
    Raises: InputError if heads, feed-forward width or vocabulary do not divide, the model is no GPT or is
        divided already, or the mesh has more axes.
    Source: Shoeybi et al. 2019, Megatron-LM, section 3 (https://arxiv.org/abs/1909.08053); Korthikanti et
        al. 2022, section 4.2 (https://arxiv.org/abs/2205.05198).
    """
    one_axis(mesh, "tp")
    check_divides(model, mesh.size())
    is_tied = _is_tied(model)
    if sequence_parallel:
        check_whole(model, fix="leave sequence_parallel out: the stages hand on whole sequences")
        model.blocks[0].register_forward_pre_hook(partial(_check_input, tp_size=mesh.size()))
    plan = dict(_plan(model, sequence_parallel=sequence_parallel, loss_parallel=loss_parallel))
    parallelize_module(model, mesh, plan)
    if is_tied:  # the two modules were distributed one after the other
        model.lm_head.weight = model.token_embedding.weight
    for parameter in model.parameters():
        parameter.register_hook(partial(_like_parameter, placements=parameter.placements))
    return model


def check_divides(model: GPT, tp_size: int) -> None:
    """Raise an InputError that says what would divide, unless all that `tp_size` ranks share divides.

    Args:
        model: a GPT, or a stage of one, that is not yet divided.
        tp_size: number of tensor-parallel ranks.
    """
    if not isinstance(model, GPT):
        raise InputError(
            "this model cannot be divided",
            expected="GPT",
            got=type(model).__name__,
            fix="use torch.distributed.tensor.parallel.parallelize_module for another one",
        )
    if any(block is not None and not isinstance(block.feed_forward, FeedForward) for block in model.blocks):
        raise InputError("experts are not divided by tensors", fix="spread them over the axis ep")
    projections = [block.attention.q_proj for block in model.blocks if block is not None]
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()) or any(
        not isinstance(projection, nn.Linear)
        for projection in projections  # by hand
    ):
        raise InputError("the model is divided already", fix="divide by tensors before anything else")
    sizes = {name: getattr(model.config, name) for name in ("n_heads", "n_kv_heads", "d_ff", "vocab_size")}
    for name, size in sizes.items():
        if size % tp_size:
            raise InputError(
                f"{name} does not divide among the tensor-parallel ranks",
                expected=f"a multiple of {tp_size}, as {size + -size % tp_size} is",
                got=size,
                fix=_fix(name, list(sizes.values()), tp_size),
            )


def check_sequence(seq_len: int, tp_size: int) -> None:
    """Raise an InputError unless a sequence of `seq_len` tokens divides among `tp_size` ranks."""
    if seq_len % tp_size:
        raise InputError(
            "the sequence does not divide among the ranks",
            expected=f"a multiple of {tp_size}, as {seq_len + -seq_len % tp_size} is",
            got=f"{seq_len} tokens",
            fix="pad it, with labels of IGNORE_INDEX",
        )


def check_whole(model: GPT, *, fix: str) -> None:
    """Raise an InputError with that `fix` if parts of `model` were taken out, as from a pipeline's stage."""
    parts = model.token_embedding, model.final_norm, model.lm_head, *model.blocks
    if any(part is None for part in parts):
        raise InputError(
            "the model is a stage of a pipeline",
            expected="a whole model",
            got="one with parts left out",
            fix=fix,
        )


def _plan(model: GPT, *, sequence_parallel: bool, loss_parallel: bool) -> Iterator[tuple[str, ParallelStyle]]:
    """Yield the names of modules and how each is divided."""
    stream = Shard(1) if sequence_parallel else Replicate()  # of the hidden states between the matrices
    norm = SequenceParallel(use_local_output=True) if sequence_parallel else _Replicated()
    # One DTensor for q, k and v: each by itself would communicate a gradient of its own.
    enter = PrepareModuleInput(input_layouts=(stream,), desired_input_layouts=(Replicate(),))
    styles = {
        "attention_norm": norm,
        "feed_forward_norm": norm,
        "attention": enter,
        "feed_forward": enter,
        "q_proj": ColwiseParallel(),
        "k_proj": ColwiseParallel(),
        "v_proj": ColwiseParallel(),
        "up_proj": ColwiseParallel(),
        "gate_proj": ColwiseParallel(),
        "o_proj": RowwiseParallel(output_layouts=stream),
        "down_proj": RowwiseParallel(output_layouts=stream),
        "token_embedding": RowwiseParallel(input_layouts=Replicate()),
        "position_embedding": _Replicated(),
        "final_norm": norm,
        "lm_head": ColwiseParallel(
            input_layouts=stream,
            output_layouts=Shard(-1) if loss_parallel else Replicate(),
            use_local_output=not loss_parallel,
        ),
    }
    for name, _ in model.named_modules():
        if (style := styles.get(name.rpartition(".")[2])) is not None:
            yield name, style
    if sequence_parallel:
        yield (
            "blocks.0",
            PrepareModuleInput(
                input_layouts=(Replicate(),), desired_input_layouts=(stream,), use_local_output=True
            ),
        )


class _Replicated(ParallelStyle):
    """A module that all ranks compute alike; its parameters are DTensors as those of the others are."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(
            module, device_mesh, input_fn=self._prepare_input, output_fn=self._prepare_output
        )

    @staticmethod
    def _prepare_input(_: nn.Module, inputs: tuple, mesh: DeviceMesh) -> tuple:
        return (DTensor.from_local(inputs[0], mesh, (Replicate(),), run_check=False), *inputs[1:])

    @staticmethod
    def _prepare_output(_: nn.Module, output: DTensor, mesh: DeviceMesh) -> Tensor:
        return output.to_local()


def _like_parameter(gradient: DTensor, *, placements: tuple) -> DTensor:
    """Return the gradient divided as its parameter is.

    A norm's gradient under sequence parallelism arrives as terms of a sum over ranks. Torch would sum it in
    each operation of the optimizer anew. The embedding's arrives whole, where a part is wanted.
    """
    return gradient.redistribute(placements=placements)


def _is_tied(model: GPT) -> bool:
    embedding, head = model.token_embedding, model.lm_head
    return embedding is not None and head is not None and embedding.weight is head.weight


def _check_input(_: nn.Module, inputs: tuple[Any, ...], *, tp_size: int) -> None:
    check_sequence(inputs[0].shape[1], tp_size)


def _fix(name: str, sizes: list[int], tp_size: int) -> str:
    if name == "vocab_size":
        return "make it larger: the ids beyond the tokenizer's are never used"
    fitting = [n for n in range(1, tp_size) if all(size % n == 0 for size in sizes)]
    return f"or use {max(fitting)} tensor-parallel ranks"
