"""Pipeline parallelism: every rank holds some layers, and micro-batches pass through the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage

from coursekit.errors import InputError, check_whole

from ._process_group import require_process_group
from .spans import Span

Group = dist.ProcessGroup | None
LossSum = Callable[[Tensor, Tensor], Tensor]

_SCHEDULES: dict[str, Any] = {
    "gpipe": pipelining.ScheduleGPipe,
    "1f1b": pipelining.Schedule1F1B,
    "interleaved": pipelining.ScheduleInterleaved1F1B,
    "zero_bubble": pipelining.ScheduleInterleavedZeroBubble,
    "zbv": pipelining.ScheduleZBVZeroBubble,
}
_MANY_STAGES = ("interleaved", "zero_bubble", "zbv")


class PipelineSchedule:
    """Stages of a rank and the order of their work; `step` is one forward and backward pass of a batch.

    Made by `make_schedule`.

    Attributes:
        stages: the modules of this rank.
        num_micro_batches: m, into which a batch is cut.
        torch_schedule: the schedule of `torch.distributed.pipelining` that does the work.
    """

    def __init__(
        self, name: str, placed: list[PipelineStage], num_micro_batches: int, loss_sum: LossSum
    ) -> None:
        self.stages: list[nn.Module] = [stage.submod for stage in placed]
        self.num_micro_batches = num_micro_batches
        self._loss = _MeanPart(loss_sum)
        self._is_first = any(stage.is_first for stage in placed)
        self._is_last = any(stage.is_last for stage in placed)
        self._inputs_like: tuple | None = None  # shape and dtype of the first step's inputs
        self.torch_schedule = _SCHEDULES[name](
            placed if name in _MANY_STAGES else placed[0],
            num_micro_batches,
            loss_fn=self._loss,
            scale_grads=False,  # it would divide by m, which is right for the mean of equal means only
        )

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of this rank's stages, for its optimizer."""
        for stage in self.stages:
            yield from stage.parameters()

    def step(
        self, inputs: Tensor, targets: Tensor, *, num_valid: int | Tensor, dp_size: int = 1
    ) -> Tensor | None:
        """Add the gradient of the mean loss to every `p.grad` of this rank; return that mean.

        Equals one backward pass of the whole model over the whole batch (but for dropout's random numbers),
        also if micro-batches have unequal numbers of valid items. Does not zero `p.grad` first. All ranks
        call it with the same batch.

        Args:
            inputs: the whole batch, cut along dim 0 into equal micro-batches. The rank of the first stage
                uses them; shape and dtype must stay those of the first step.
            targets: likewise, for the rank of the last stage.
            num_valid: valid items of the whole step: of all micro-batches, and of all data-parallel ranks;
                see `coursekit.train.count_valid`.
            dp_size: number of ranks over which the stages *average* gradients (DDP, FSDP), as in
                `coursekit.train.accumulate_gradients`.

        Returns: the sum of the batch's losses over `num_valid`, detached, on the rank that has the last
            stage; None on all others.
        Raises: InputError if the batch does not divide, its shape changed, or there is nothing to average.
        """
        self._check(inputs, targets, num_valid)
        self._loss.factor = dp_size / num_valid
        loss = self._run(self.torch_schedule.step, inputs, targets)
        return loss if loss is None else loss / dp_size

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, targets: Tensor, *, num_valid: int | Tensor) -> Tensor | None:
        """Return the mean loss of a batch, on the rank that has the last stage; None on all others.

        Computes no gradient and keeps no graph. Arguments as for `step`, with the shape of the steps. Dropout
        stays on unless `eval()` was called on every one of `stages`.

        Raises: InputError as `step` does, and for "zbv", whose forward pass torch 2.13 cannot run alone.
        """
        if isinstance(self.torch_schedule, pipelining.ScheduleZBVZeroBubble):
            raise InputError(
                "'zbv' cannot evaluate", fix="use another schedule where losses are to be evaluated"
            )
        self._check(inputs, targets, num_valid)
        self._loss.factor = 1 / num_valid
        return self._run(self.torch_schedule.eval, inputs, targets)

    def _run(self, method: Callable[..., object], inputs: Tensor, targets: Tensor) -> Tensor | None:
        losses: list[Tensor] = []
        method(
            *([inputs] if self._is_first else []),
            target=targets if self._is_last else None,
            losses=losses if self._is_last else None,
            return_outputs=False,
        )
        return torch.stack(losses).detach().sum() if self._is_last else None

    def _check(self, inputs: Tensor, targets: Tensor, num_valid: int | Tensor) -> None:
        m = self.num_micro_batches
        if len(inputs) != len(targets) or len(inputs) % m or not len(inputs):
            above = max(1, math.ceil(len(inputs) / m)) * m
            raise InputError(
                "the batch does not divide into micro-batches",
                expected=f"inputs and targets of a multiple of {m} rows, as {above} is",
                got=f"{len(inputs)} and {len(targets)}",
            )
        like = tuple(inputs.shape), inputs.dtype
        if self._inputs_like not in (None, like):
            raise InputError(
                "the inputs changed, and ranks expect of each other what they got in the first step",
                expected=self._inputs_like,
                got=like,
                fix="make another schedule for another shape",
            )
        on_host = not isinstance(num_valid, Tensor) or num_valid.device.type == "cpu"
        if on_host and not 0 < num_valid < math.inf:
            got = num_valid.item() if isinstance(num_valid, Tensor) else num_valid
            raise InputError("the batch has nothing to average", expected="a finite num_valid > 0", got=got)
        self._inputs_like = like


def make_schedule(
    name: str,
    stages: Sequence[nn.Module],
    *,
    num_micro_batches: int,
    loss_sum: LossSum,
    group: Group = None,
) -> PipelineSchedule:
    """Return the schedule `name` for this rank's stages, run by `torch.distributed.pipelining`.

    The first step, and the first after each change between `step` and `evaluate`, computes one micro-batch
    more, with uninitialised numbers, to learn the shapes that ranks send. A layer that keeps statistics of
    what it sees (batch norm) should get its buffers back after it.

    Args:
        name: "gpipe" or "1f1b", one stage a rank; "interleaved" or "zero_bubble" (ZB-H1 with one stage a
            rank), v stages a rank, rank r of p holding r, r + p, r + 2p, ...; "zbv", two stages a rank,
            r and 2p − 1 − r, so that rank 0 has the first and the last.
        stages: of the whole model, the same number on each rank (`split_into_stages`); this rank keeps its
            own. They may be wrapped (DDP, FSDP, tensor parallelism) before; this rank's are on its device.
        num_micro_batches: m. "1f1b" needs p at least, "interleaved" and "zero_bubble" a multiple of p.
        loss_sum: maps (output, targets) of a micro-batch to the loss *summed* over valid items, a scalar.
        group: the pipeline's ranks; None is all.
    Raises: InputError for another name, a number of stages or micro-batches that does not fit, or without a
        process group.
    Source: Narayanan et al. 2021 (https://arxiv.org/abs/2104.04473); Qi et al. 2024
        (https://arxiv.org/abs/2401.10241).
    """
    require_process_group(group)
    num_ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    _check_sizes(name, len(stages), num_ranks, num_micro_batches)
    mine = [rank, len(stages) - 1 - rank] if name == "zbv" else range(rank, len(stages), num_ranks)
    parameters = (parameter for index in mine for parameter in stages[index].parameters())
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    placed = [PipelineStage(stages[index], index, len(stages), device, group=group) for index in mine]
    return PipelineSchedule(name, placed, num_micro_batches, loss_sum)


def measure_idle_share(spans_by_rank: Sequence[Sequence[Span]]) -> float:
    """Return the share of all ranks' time, first start to last end, in which none of their operators ran.

    To hold against `bubble_over_step`. It is larger: it counts Python's and torch's own work between
    operators as well, and ranks that share a core wait for each other.

    Args:
        spans_by_rank: what `record_spans` gave on each rank of one machine, whose clock they share.
    Raises: InputError if no rank computed.

    >>> spans = [[Span("compute", "mm", 0.0, 3.0)], [Span("compute", "mm", 3.0, 4.0)]]
    >>> measure_idle_share(spans)
    0.5
    """
    computed = [[span for span in spans if span.kind == "compute"] for spans in spans_by_rank]
    everything = [span for spans in computed for span in spans]
    if not everything:
        raise InputError("no rank computed anything", fix="record the whole step with record_spans")
    start = min(span.start_seconds for span in everything)
    end = max(span.end_seconds for span in everything)
    total = (end - start) * len(computed)
    return 1 - sum(span.seconds for span in everything) / total


class _MeanPart:
    """A micro-batch's part of the mean loss: its sum, times a factor that each step sets."""

    def __init__(self, loss_sum: LossSum) -> None:
        self.loss_sum = loss_sum
        self.factor: float | Tensor = 1.0

    def __call__(self, output: Tensor, targets: Tensor) -> Tensor:
        return self.loss_sum(output, targets) * self.factor


def _check_sizes(name: str, num_stages: int, num_ranks: int, num_micro_batches: int) -> None:
    if name not in _SCHEDULES:
        raise InputError("unknown schedule", expected=", ".join(_SCHEDULES), got=repr(name))
    multiple = f"a multiple of the {num_ranks} ranks"
    check_whole("no micro-batches", least=0, num_micro_batches=num_micro_batches)
    stages_fit = {
        "interleaved": (num_stages > 0 and num_stages % num_ranks == 0, multiple),
        "zero_bubble": (num_stages > 0 and num_stages % num_ranks == 0, multiple),
        "zbv": (num_stages == 2 * num_ranks, f"two stages a rank, {2 * num_ranks}"),
    }
    fits, expected = stages_fit.get(name, (num_stages == num_ranks, f"one stage a rank, {num_ranks}"))
    if not fits:
        raise InputError(f"the stages do not fit {name!r}", expected=expected, got=num_stages)
    batches_fit = {
        "1f1b": (num_micro_batches >= num_ranks, f"at least one a rank, {num_ranks}"),
        "interleaved": (num_micro_batches > 0 and num_micro_batches % num_ranks == 0, multiple),
        "zero_bubble": (num_micro_batches > 0 and num_micro_batches % num_ranks == 0, multiple),
    }
    fits, expected = batches_fit.get(name, (num_micro_batches > 0, "1 or more"))
    if not fits:
        raise InputError(f"the micro-batches do not fit {name!r}", expected=expected, got=num_micro_batches)
