"""Steps that run out of memory, planted and real, against the same steps with memory enough, in float64."""

import gc
import json
import math
import os
import subprocess
import sys
import textwrap
import weakref

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import RankError, average_gradients, launch, replicate
from coursekit.train import (
    DoesNotFitError,
    DynamicBatchSize,
    accumulate_gradients,
    find_micro_batch_size,
    free_memory,
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


def step_of(model, *, limit, rows=None, sizes_seen=None, fault=CPU_MESSAGE):
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

        return accumulate_gradients(loss_sum, range(len(micro_batches)), num_valid=len(rows))

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


def step_on_rank(limits, size):
    """The rank's part of the batch, its own limit; returns its gradient after averaging, and its sizes."""
    import warnings

    rank, seen, model = dist.get_rank(), [], tiny_net()
    rows = rows_of().chunk(dist.get_world_size())[rank]
    sizes = DynamicBatchSize(model, micro_batch_size=size)
    torch.manual_seed(rank)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes.run(step_of(model, limit=limits[rank], rows=rows, sizes_seen=seen))
    average_gradients(model)
    return gradient_of(model), seen


def joined_ranks(world_size):
    """The oracle: one process, with the noise that each rank draws."""
    model, parts = tiny_net(), []
    for rank, rows in enumerate(rows_of().chunk(world_size)):
        torch.manual_seed(rank)
        parts.append(rows + 0.5 * torch.randn(rows.shape, dtype=torch.float64))
    model(torch.cat(parts)).square().mean().backward()
    return gradient_of(model)


@pytest.mark.parametrize("limits", [(6, 2), (2, 6, 6, 6)])
def test_if_one_rank_runs_out_of_memory_all_repeat_and_the_gradient_is_that_of_one_process(limits):
    for gradient, seen in launch(step_on_rank, len(limits), limits, 6, timeout_seconds=120):
        torch.testing.assert_close(gradient, joined_ranks(len(limits)), rtol=1e-12, atol=1e-15)
        assert seen == [6, 3, 1]


def test_if_one_rank_cannot_take_one_sequence_all_give_up():
    with pytest.raises(RankError) as caught:
        launch(step_on_rank, 2, (6, 0), 1, timeout_seconds=120)
    assert len(caught.value.failures) == 2
    assert "one sequence does not fit" in str(caught.value)


def wrapped_model():
    with pytest.raises(InputError, match="expected the module itself, got DistributedDataParallel"):
        DynamicBatchSize(replicate(tiny_net()), micro_batch_size=1)


def test_a_model_whose_ranks_would_wait_for_each_other_is_refused():
    launch(wrapped_model, 1)


def test_sizes_below_one_are_errors():
    with pytest.raises(InputError, match="micro_batch_size >= 1, got 0"):
        DynamicBatchSize(tiny_net(), micro_batch_size=0)
    with pytest.raises(InputError, match="max_size >= 1, got 0"):
        find_micro_batch_size(lambda size: None, max_size=0)


LIMITED = """
    import json, resource, warnings
    import torch
    from torch import nn
    from coursekit.train import (DoesNotFitError, DynamicBatchSize, accumulate_gradients,
        find_micro_batch_size, repeat_step_until_it_fits_naive, split_into_micro_batches)

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a thread that cannot be started under the limit ends the process
    rows, d_hidden = 2048, 4096  # all rows at once need three tensors of 64 MiB, half the rows 96 MiB
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, d_hidden), nn.Tanh(), nn.Linear(d_hidden, 1)).double()
    inputs = torch.randn(rows, 8, dtype=torch.float64)

    def compute_gradients(micro_batch_size):
        micro_batches = split_into_micro_batches(inputs, micro_batch_size)
        return accumulate_gradients(lambda x: model(x).square().sum(), micro_batches, num_valid=rows)

    def gradient():
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    def error(expected):
        return ((gradient() - expected).norm() / expected.norm()).item()

    compute_gradients(rows)
    expected = gradient()
    model.zero_grad()

    status = open("/proc/self/status").read()
    used = int(status.split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 140 * 2**20,) * 2)

    sizes = DynamicBatchSize(model, micro_batch_size=rows)
    sizes.run(compute_gradients)
    report = {"size": sizes.micro_batch_size, "error": error(expected)}
    _, report["naive_size"] = repeat_step_until_it_fits_naive(compute_gradients, model, micro_batch_size=rows)
    report["naive_error"] = error(expected)
    model.zero_grad()
    found = find_micro_batch_size(compute_gradients, max_size=rows, only_powers_of_two=True)
    report["found"] = found.micro_batch_size
    try:
        DynamicBatchSize(model, micro_batch_size=4).run(lambda size: torch.empty(size, 2**28))
    except DoesNotFitError as failure:
        report["failure"] = str(failure)
    print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS bounds memory on Linux only")
def test_under_a_real_memory_limit_a_step_finishes_smaller_and_right(tmp_path):
    script = tmp_path / "limited.py"
    script.write_text(textwrap.dedent(LIMITED))
    # glibc keeps freed blocks below a bound that it moves; with one that stays they go back to the system
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=250, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["size"] == 1024
    assert report["error"] < 1e-12
    assert report["naive_error"] < 1e-12
    assert report["naive_size"] == report["size"]
    assert report["found"] == report["size"]
    assert "DefaultCPUAllocator: can't allocate memory" in report["failure"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings(REPEATED)
def test_on_cuda_a_step_finishes_smaller_and_right():
    rows, d_hidden = 4096, 16384  # activations of 512 MiB each if all rows go at once
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, d_hidden), nn.Tanh(), nn.Linear(d_hidden, 1)).double().cuda()
    inputs = torch.randn(rows, 8, dtype=torch.float64, device="cuda")

    def compute_gradients(micro_batch_size):
        micro_batches = split_into_micro_batches(inputs, micro_batch_size)
        return accumulate_gradients(lambda x: model(x).square().sum(), micro_batches, num_valid=rows)

    compute_gradients(512)
    expected = gradient_of(model)
    free_memory()
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**29) / total_bytes)
    try:
        sizes = DynamicBatchSize(model, micro_batch_size=rows)
        sizes.run(compute_gradients)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= sizes.micro_batch_size < rows
    torch.testing.assert_close(gradient_of(model), expected, rtol=1e-10, atol=1e-12)  # other kernels by size
