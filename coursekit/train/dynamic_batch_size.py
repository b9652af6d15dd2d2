"""Dynamic batch size: a micro-batch as large as memory allows, and a smaller one when it no longer does.

The global batch does not change: a step that runs out of memory is repeated with smaller micro-batches, more
of them, from the same random state, and ends in the gradient it would have had.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from coursekit.errors import CoursekitError, InputError, check_whole
from coursekit.train.gradient_accumulation import all_reduce_count
from coursekit.train.seed import get_rng_state, preserve_rng, set_rng_state

T = TypeVar("T")

_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",  # Linux
    "DefaultCPUAllocator: not enough memory",  # Windows, macOS
    "std::bad_alloc",  # memory that an operation takes besides its tensors
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


class DoesNotFitError(CoursekitError, MemoryError):
    """One sequence a micro-batch does not fit into memory: there is nothing left to make smaller.

    Args:
        allocator_message: what the last attempt failed of, here or on another rank.
    """

    def __init__(self, allocator_message: str) -> None:
        self.allocator_message = allocator_message
        super().__init__(
            "a micro-batch of one sequence does not fit into memory; shorten the sequences, keep fewer "
            f"activations (checkpoint_layers), or spread the model. The allocator said: {allocator_message}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or a CPU, and nothing else.

    On a CPU torch raises a bare `RuntimeError`, which only its message tells from other faults.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    True
    >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def repeat_step_until_it_fits_naive(
    compute_gradients: Callable[[int], T], model: nn.Module, *, micro_batch_size: int
) -> tuple[T, int]:
    """Return what `compute_gradients` returns, and the size of micro-batch with which it fitted.

    The version to read, for one process; `DynamicBatchSize` does the same, remembers the size, and has ranks
    agree. Each of the three lines that end the loop is a bug if left out: gradients of the attempt that
    failed stay in the sum, what is random is drawn anew, and the memory that was lacking is still taken.

    Raises: InputError for a size below 1. Other errors pass through, at a size of 1 the allocator's too.
    """
    check_whole("no micro-batch", micro_batch_size=micro_batch_size)
    rng_state = get_rng_state()
    model.zero_grad()
    while True:
        try:
            return compute_gradients(micro_batch_size), micro_batch_size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or micro_batch_size == 1:
                raise
        micro_batch_size //= 2
        model.zero_grad()
        set_rng_state(rng_state)
        free_memory()  # not within `except`: until its end the error keeps the attempt's activations alive


class DynamicBatchSize:
    """Holds the size of a micro-batch, and repeats a step with half of it when memory runs out.

    The loop; `compute_gradients` is called again with a smaller size if it has to be:

        sizes = DynamicBatchSize(model, micro_batch_size=64)
        for batch in loader:
            def compute_gradients(micro_batch_size):
                micro_batches = split_into_micro_batches(batch, micro_batch_size)
                return accumulate_gradients(loss_sum, micro_batches, num_valid=num_valid)

            loss = sizes.run(compute_gradients)  # in place of optimizer.zero_grad() and backward
            optimizer.step()

    The update stays outside, since an update that ran half-way cannot be repeated. The gradient stays the
    same but for rounding, and for what depends on the micro-batch itself: numbers drawn in each forward call
    (dropout draws its masks by micro-batch) and batch norm. What else a failed attempt changed, such as
    running statistics or counters of your own, is not taken back. The size never grows by itself; set
    `micro_batch_size` to try more.

    Under data parallelism the size becomes smaller on all ranks if memory ran out on one, and all repeat.
    For that they may not talk to each other within `compute_gradients`: who ran out of memory would not
    answer, and the others would wait. So the model is not wrapped in DDP; average after `run`, with
    `coursekit.parallel.average_gradients`. FSDP and tensor parallelism talk in the forward pass: find their
    size before training.

    Args:
        model: the model whose `p.grad` are zeroed before each attempt.
        micro_batch_size: sequences in a micro-batch of the first attempt, the same on all ranks; no more than
            a step has, or the first halvings change nothing.
        group: ranks that agree; None is all there are.
    Raises: InputError for a size below 1, or a model wrapped in DDP or FSDP.
    """

    def __init__(self, model: nn.Module, *, micro_batch_size: int, group: Any = None) -> None:
        check_whole("no micro-batch", micro_batch_size=micro_batch_size)
        if not isinstance(model, nn.Module):
            raise InputError("no model", expected="nn.Module", got=type(model).__name__)
        if hasattr(model, "set_requires_gradient_sync") or hasattr(model, "no_sync"):
            raise InputError(
                "ranks of a wrapped model wait for each other within a step, so none can repeat it alone",
                expected="the module itself",
                got=type(model).__name__,
                fix="average after run, with average_gradients; for FSDP find the size before training",
            )
        self.model, self.group = model, group
        self.micro_batch_size, self.num_repeats = micro_batch_size, 0

    def run(self, compute_gradients: Callable[[int], T]) -> T:
        """Zero the gradients, return `compute_gradients(micro_batch_size)`, repeat it smaller if need be.

        Args:
            compute_gradients: forward and backward of a whole step in micro-batches of the size given, summed
                into `p.grad`; no update, no communication.
        Raises: DoesNotFitError if one sequence does not fit, on all ranks. InputError for a
            `micro_batch_size` that was set below 1, or found to differ between ranks when memory runs out.
            Other errors pass through.
        """
        check_whole("no micro-batch", micro_batch_size=self.micro_batch_size)
        rng_state = get_rng_state()
        self.model.zero_grad()
        while True:
            attempt = _attempt(compute_gradients, self.micro_batch_size)
            if self._sum_over_ranks(int(not attempt.fits)) == 0:
                return attempt.result
            self._check_same_size()
            message = attempt.message
            del attempt  # on a rank that had enough it holds a result, which may hold a graph
            self._shrink(message)
            self.model.zero_grad()  # what the attempt had accumulated would count twice
            set_rng_state(rng_state)
            free_memory()

    def state_dict(self) -> dict[str, int]:
        """Return the size that fits, for a checkpoint, so that a resumed run does not fail its way down."""
        return {"micro_batch_size": self.micro_batch_size, "num_repeats": self.num_repeats}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on with a state that `state_dict` returned."""
        self.micro_batch_size = state_dict["micro_batch_size"]
        self.num_repeats = state_dict["num_repeats"]

    def _check_same_size(self) -> None:
        """Raise on every rank if one has another size: the smallest would give up, and others wait for it."""
        size, num_ranks = self.micro_batch_size, self._sum_over_ranks(1)
        # Variance 0, times the number of ranks squared: of integers, so exact.
        if num_ranks * self._sum_over_ranks(size**2) != self._sum_over_ranks(size) ** 2:
            raise InputError(
                "the ranks' micro-batches differ",
                expected="one micro_batch_size on all ranks",
                got=f"{size} on this one",
                fix="take the smallest that find_micro_batch_size found on any",
            )

    def _sum_over_ranks(self, number: int) -> int:
        device = next((parameter.device for parameter in self.model.parameters()), "cpu")
        return all_reduce_count(number, group=self.group, device=device)

    def _shrink(self, message: str) -> None:
        if self.micro_batch_size == 1:
            raise DoesNotFitError(message)
        self.micro_batch_size //= 2
        self.num_repeats += 1
        warnings.warn(
            f"out of memory: repeating the step with micro-batches of {self.micro_batch_size}. {message}",
            stacklevel=3,
        )


@dataclass(frozen=True)
class MicroBatchSearch:
    """What `find_micro_batch_size` found."""

    micro_batch_size: int
    """The largest size that fitted."""
    trials: tuple[tuple[int, bool], ...]
    """Each size tried and whether it fitted, in order."""

    @property
    def num_trials(self) -> int:
        """How often `try_step` was called."""
        return len(self.trials)


def find_micro_batch_size(
    try_step: Callable[[int], object], *, max_size: int, only_powers_of_two: bool = False
) -> MicroBatchSearch:
    """Return the largest micro-batch of up to `max_size` sequences for which `try_step` has enough memory.

    Doubles the size until memory runs out, then halves the interval between the largest that fitted and the
    smallest that did not: at most 2 log2(max_size) + 2 trials. Random states are as before afterwards. Ranks
    search each for themselves: take the smallest of their sizes.

    Args:
        try_step: runs a step with micro-batches of the size given, and needs as much memory as a real step
            does: the longest sequences, backward, gradients, and the optimizer's state, which Adam and
            others make in the first step only. It may leave gradients behind: zero them.
        max_size: sequences; the global batch of a rank, as a rule.
        only_powers_of_two: no bisection, for sizes that divide the global batch.
    Raises: DoesNotFitError if one sequence does not fit; InputError for a `max_size` below 1. Other errors
        of `try_step` pass through.

    >>> def try_step(micro_batch_size):
    ...     if micro_batch_size > 11:
    ...         raise torch.OutOfMemoryError
    >>> found = find_micro_batch_size(try_step, max_size=64)
    >>> found.micro_batch_size, [size for size, _ in found.trials]
    (11, [1, 2, 4, 8, 16, 12, 10, 11])
    """
    check_whole("no micro-batch to try", max_size=max_size)
    trials: list[tuple[int, bool]] = []
    fits, too_large, message = 0, None, ""
    with preserve_rng():
        while size := _next_size(fits, too_large, max_size, only_powers_of_two):
            attempt = _attempt(try_step, size)
            trials.append((size, attempt.fits))
            if attempt.fits:
                fits = size
            else:
                too_large, message = size, attempt.message
                free_memory()
            del attempt  # what try_step returned may hold a graph, and the next trial needs the room
    if fits == 0:
        raise DoesNotFitError(message)
    return MicroBatchSearch(fits, tuple(trials))


def free_memory() -> None:
    """Give back memory that nobody refers to any more: cycles of Python objects, the allocator's cache."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _next_size(fits: int, too_large: int | None, max_size: int, only_powers_of_two: bool) -> int | None:
    """Return the size to try after those that fitted and did not, or None if the largest is known."""
    if too_large is not None:
        known = only_powers_of_two or too_large - fits == 1
        return None if known else (fits + too_large) // 2
    if fits == max_size or (only_powers_of_two and 2 * fits > max_size):
        return None
    return min(max(2 * fits, 1), max_size)


@dataclass(frozen=True)
class _Attempt(Generic[T]):
    fits: bool
    result: T | None = None
    message: str = "Another rank ran out of memory, this one did not."


def _attempt(function: Callable[[int], T], size: int) -> _Attempt[T]:
    try:
        return _Attempt(True, function(size))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).partition("\n")[0] or type(error).__name__
    # Words alone leave this function. The error itself has the traceback, that has the frames of the forward
    # pass, and these have its activations: kept, it would take the memory that the next attempt needs.
    return _Attempt(False, message=message)
