"""Steps in which a lack of memory is planted, against the same steps with memory enough, in float64."""

import gc
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coursekit.errors import InputError
from coursekit.train import (
    DoesNotFitError,
    DynamicBatchSize,
    LossScaler,
    accumulate_gradients,
    checkpoint_layers,
    find_micro_batch_size,
    is_out_of_memory,
    repeat_step_until_it_fits_naive,
    split_into_micro_batches,
)

ROWS = 12
REPEATED = "ignore:out of memory. repeating the step:UserWarning"
CPU_MESSAGE = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.fixture(autouse=True, scope="module")
def _short_collections():
    """Spare the collector what torch and pytest have made: it runs at each planted lack of memory."""
    gc.freeze()
    yield
    gc.unfreeze()


def tiny_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def rows_of(num_rows=ROWS):
    return torch.randn(num_rows, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def step_of(model, *, limit, rows=None, sizes_seen=None, fault=CPU_MESSAGE, **options):
    """A step that fails in its last micro-batch, with gradients accumulated, for sizes above `limit`.

    Noise is drawn for the whole batch at the start, so that a repeat from another random state shows.
    """
    rows = rows_of() if rows is None else rows

    def compute_gradients(micro_batch_size):
        if sizes_seen is not None:
            sizes_seen.append(micro_batch_size)
        inputs = rows + 0.5 * torch.randn(rows.shape, dtype=torch.float64)
        micro_batches = split_into_micro_batches(inputs, micro_batch_size)

        def loss_sum(index):
            if index == len(micro_batches) - 1 and micro_batch_size > limit:
                raise RuntimeError(fault)
            return model(micro_batches[index]).square().sum()

        return accumulate_gradients(loss_sum, range(len(micro_batches)), num_valid=len(rows), **options)

    return compute_gradients


def gradient_of(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def with_memory_enough():
    """The oracle: the whole batch at once, no coursekit."""
    model, rows = tiny_net(), rows_of()
    torch.manual_seed(5)
    loss = model(rows + 0.5 * torch.randn(rows.shape, dtype=torch.float64)).square().mean()
    loss.backward()
    return gradient_of(model), loss.detach()


def is_the_whole_step(model, loss):
    expected, expected_loss = with_memory_enough()
    same_gradient = torch.allclose(gradient_of(model), expected, rtol=1e-12, atol=1e-15)
    return same_gradient and torch.allclose(loss, expected_loss, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings(REPEATED)
@pytest.mark.parametrize(("limit", "sizes_tried"), [(11, [11]), (5, [11, 5]), (1, [11, 5, 2, 1])])
def test_a_step_that_ran_out_of_memory_ends_in_the_gradient_it_would_have_had(limit, sizes_tried):
    model, seen = tiny_net(), []
    sizes = DynamicBatchSize(model, micro_batch_size=11)
    torch.manual_seed(5)
    loss = sizes.run(step_of(model, limit=limit, sizes_seen=seen))
    assert is_the_whole_step(model, loss)
    assert seen == sizes_tried
    assert (sizes.micro_batch_size, sizes.num_repeats) == (sizes_tried[-1], len(sizes_tried) - 1)


@pytest.mark.parametrize(("limit", "size"), [(11, 11), (4, 2), (1, 1)])
def test_the_naive_version_ends_in_it_too(limit, size):
    model = tiny_net()
    torch.manual_seed(5)
    loss, fitted = repeat_step_until_it_fits_naive(step_of(model, limit=limit), model, micro_batch_size=11)
    assert fitted == size
    assert is_the_whole_step(model, loss)


@pytest.mark.filterwarnings(REPEATED)
def test_it_goes_together_with_checkpointed_layers_and_a_loss_scale():
    model, scaler = tiny_net(), LossScaler("cpu")  # a power of two: no rounding
    checkpoint_layers([model[1]])
    sizes = DynamicBatchSize(model, micro_batch_size=11)
    torch.manual_seed(5)
    loss = sizes.run(step_of(model, limit=4, backward=lambda loss: scaler.scale(loss).backward()))
    scaler.unscale_(torch.optim.SGD(model.parameters(), lr=0.1))
    assert is_the_whole_step(model, loss)


def repeat_with_bug(model, *, zero, restore):
    """The loop that one writes first, with a line or two of the naive version left out."""
    torch.manual_seed(5)
    compute_gradients, size, rng_state = step_of(model, limit=5), 11, torch.get_rng_state()
    while True:
        try:
            return compute_gradients(size)
        except RuntimeError:
            size //= 2
        if zero:
            model.zero_grad()
        if restore:
            torch.set_rng_state(rng_state)


@pytest.mark.parametrize("right", [{"zero": True}, {"restore": True}, {}])
def test_control_gradients_not_zeroed_or_random_state_not_restored_are_rejected(right):
    model = tiny_net()
    loss = repeat_with_bug(model, **{"zero": False, "restore": False, **right})
    assert not is_the_whole_step(model, loss)


def test_control_with_neither_bug_that_loop_is_accepted():
    model = tiny_net()
    assert is_the_whole_step(model, repeat_with_bug(model, zero=True, restore=True))


@pytest.mark.filterwarnings(REPEATED)
def test_the_size_that_fitted_is_kept_for_the_next_step_and_in_the_state():
    model, seen = tiny_net(), []
    sizes = DynamicBatchSize(model, micro_batch_size=8)
    for _ in range(2):
        sizes.run(step_of(model, limit=3, sizes_seen=seen))
    resumed = DynamicBatchSize(model, micro_batch_size=8)
    resumed.load_state_dict(sizes.state_dict())
    resumed.run(step_of(model, limit=3, sizes_seen=seen))
    assert seen == [8, 4, 2, 2, 2]
    assert resumed.num_repeats == 2


def test_a_repeat_is_said_with_the_new_size_and_the_allocators_words():
    model = tiny_net()
    with pytest.warns(UserWarning, match=r"with micro-batches of 3\. \[enforce fail\].*allocate 8 bytes"):
        DynamicBatchSize(model, micro_batch_size=6).run(step_of(model, limit=3))


@pytest.mark.filterwarnings(REPEATED)
def test_it_gives_up_at_one_sequence_and_says_what_would_help():
    model, seen = tiny_net(), []
    sizes = DynamicBatchSize(model, micro_batch_size=3)
    with pytest.raises(DoesNotFitError, match=r"one sequence does not fit .*checkpoint_layers.* 8 bytes"):
        sizes.run(step_of(model, limit=0, sizes_seen=seen))
    assert seen == [3, 1]
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        repeat_step_until_it_fits_naive(step_of(model, limit=0), model, micro_batch_size=1)


@pytest.mark.parametrize("fault", ["mat1 and mat2 shapes cannot be multiplied", "memory format is not right"])
def test_other_errors_pass_through_and_nothing_is_repeated(fault):
    model, seen = tiny_net(), []
    sizes = DynamicBatchSize(model, micro_batch_size=6)
    with pytest.raises(RuntimeError, match=fault):
        sizes.run(step_of(model, limit=0, sizes_seen=seen, fault=fault))
    with pytest.raises(RuntimeError, match=fault):
        repeat_step_until_it_fits_naive(step_of(model, limit=0, fault=fault), model, micro_batch_size=6)
    with pytest.raises(RuntimeError, match=fault):
        find_micro_batch_size(step_of(model, limit=0, fault=fault), max_size=6)
    assert (seen, sizes.micro_batch_size) == ([6], 6)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        DoesNotFitError(""),
        RuntimeError(CPU_MESSAGE),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_errors_of_all_allocators_are_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError(CPU_MESSAGE), RuntimeError("an illegal memory access")])
def test_control_other_errors_are_not_taken_for_them(error):
    assert not is_out_of_memory(error)


class Attempts:
    """Fails the first time, and looks in the second whether the tensor of the first is still alive."""

    def __init__(self):
        self.gone, self.tensor = None, None

    def __call__(self, micro_batch_size):
        if self.tensor is not None:
            self.gone = self.tensor() is None
            return
        activation = torch.ones(3)
        self.tensor = weakref.ref(activation)
        raise RuntimeError(CPU_MESSAGE)


@pytest.mark.filterwarnings(REPEATED)
def test_nothing_of_the_failed_attempt_is_alive_in_the_next_one():
    attempts = Attempts()
    DynamicBatchSize(tiny_net(), micro_batch_size=2).run(attempts)
    assert attempts.gone
    attempts = Attempts()
    repeat_step_until_it_fits_naive(attempts, tiny_net(), micro_batch_size=2)
    assert attempts.gone


class Graph:
    """Stands for what an attempt returns and what that keeps alive."""


def returning_graphs(fits):
    """Return a function of a size that returns an object if it fits, and asserts that none is alive."""
    graphs = []

    def attempt(size):
        assert not [graph for graph in graphs if graph() is not None]
        if not fits(size):
            raise torch.OutOfMemoryError("CUDA out of memory")
        graph = Graph()
        graphs.append(weakref.ref(graph))
        return graph

    return attempt


def test_a_rank_that_had_enough_lets_its_result_go_before_it_repeats(monkeypatch):
    sizes, others = DynamicBatchSize(tiny_net(), micro_batch_size=8), iter([1, 1, 0])
    # Another rank of the same size; a 0 is this one's, that it has not run out.
    monkeypatch.setattr(sizes, "_sum_over_ranks", lambda number: 2 * number or next(others))
    with pytest.warns(UserWarning, match="Another rank ran out of memory"):
        assert isinstance(sizes.run(returning_graphs(lambda size: True)), Graph)
    assert sizes.micro_batch_size == 2


def test_a_trial_that_fitted_is_let_go_before_the_next_one():
    assert (
        find_micro_batch_size(returning_graphs(lambda size: size <= 11), max_size=64).micro_batch_size == 11
    )


def test_control_repeated_within_except_the_failed_attempt_is_alive():
    attempts = Attempts()
    try:
        attempts(2)
    except RuntimeError:
        gc.collect()
        attempts(1)
    assert attempts.gone is False


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300))
def test_the_largest_size_is_found_in_few_trials(limit, max_size):
    def try_step(size):
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    found = find_micro_batch_size(try_step, max_size=max_size)
    assert found.micro_batch_size == min(limit, max_size)
    assert found.num_trials <= 2 * math.log2(max_size) + 2
    assert all(fits == (size <= limit) for size, fits in found.trials)
    power = find_micro_batch_size(try_step, max_size=max_size, only_powers_of_two=True)
    assert power.micro_batch_size == 2 ** int(math.log2(min(limit, max_size)))
    assert power.num_trials <= math.log2(max_size) + 2


def test_a_search_leaves_the_random_state_alone_and_gives_up_at_one_sequence():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    find_micro_batch_size(lambda size: torch.rand(size), max_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(DoesNotFitError, match="8 bytes"):
        find_micro_batch_size(step_of(tiny_net(), limit=0), max_size=4)


def test_sizes_below_one_are_errors():
    with pytest.raises(InputError, match="micro_batch_size >= 1, got 0"):
        DynamicBatchSize(tiny_net(), micro_batch_size=0)
    with pytest.raises(InputError, match="max_size >= 1, got 0"):
        find_micro_batch_size(lambda size: None, max_size=0)
    with pytest.raises(InputError, match="a whole micro_batch_size >= 1, got 4"):
        DynamicBatchSize(tiny_net(), micro_batch_size=4.5)
    with pytest.raises(InputError, match="a whole max_size >= 1, got 8"):
        find_micro_batch_size(lambda size: None, max_size=8.5)
