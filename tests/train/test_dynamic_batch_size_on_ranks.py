"""A step in which one rank lacks memory, against one process with memory enough, in float64."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import RankError, average_gradients, launch, replicate
from coursekit.train import DynamicBatchSize, accumulate_gradients, split_into_micro_batches

ROWS = 12


def tiny_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def rows_of_rank(rank, world_size):
    """The rank's part of the batch, with noise that the rank draws."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(ROWS, 5, generator=generator, dtype=torch.float64).chunk(world_size)[rank]
    return rows + 0.5 * torch.randn(rows.shape, dtype=torch.float64)


def gradient_of(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def step_on_rank(limits, size):
    """A step of a rank that has memory for `limits[rank]` rows; its averaged gradient, the sizes it tried."""
    rank, world_size, seen, model = dist.get_rank(), dist.get_world_size(), [], tiny_net()

    def compute_gradients(micro_batch_size):
        seen.append(micro_batch_size)
        micro_batches = split_into_micro_batches(rows_of_rank(rank, world_size), micro_batch_size)

        def loss_sum(index):
            if index == len(micro_batches) - 1 and micro_batch_size > limits[rank]:
                raise RuntimeError(
                    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
                )
            return model(micro_batches[index]).square().sum()

        return accumulate_gradients(loss_sum, range(len(micro_batches)), num_valid=ROWS // world_size)

    torch.manual_seed(rank)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DynamicBatchSize(model, micro_batch_size=size).run(compute_gradients)
    average_gradients(model)
    return gradient_of(model), seen


def one_process(world_size):
    """The oracle: the batch of all ranks at once, with the noise that each draws."""
    model, parts = tiny_net(), []
    for rank in range(world_size):
        torch.manual_seed(rank)
        parts.append(rows_of_rank(rank, world_size))
    model(torch.cat(parts)).square().mean().backward()
    return gradient_of(model)


@pytest.mark.parametrize("limits", [(6, 2), (6, 6, 2), (2, 6, 6, 6)])
def test_if_one_rank_runs_out_of_memory_all_repeat_and_the_gradient_is_that_of_one_process(limits):
    for gradient, seen in launch(step_on_rank, len(limits), limits, 6, timeout_seconds=120):
        torch.testing.assert_close(gradient, one_process(len(limits)), rtol=1e-12, atol=1e-15)
        assert seen == [6, 3, 1]


def test_if_one_rank_cannot_take_one_sequence_all_give_up():
    with pytest.raises(RankError) as caught:
        launch(step_on_rank, 2, (6, 0), 1, timeout_seconds=120)
    assert len(caught.value.failures) == 2
    assert "one sequence does not fit" in str(caught.value)


def unequal_sizes():
    sizes = DynamicBatchSize(tiny_net(), micro_batch_size=(8, 2, 8)[dist.get_rank()])
    with pytest.raises(InputError, match=r"the ranks' micro-batches differ: .* got [28] on this one"):
        sizes.run(lambda size: allocate_for_two(size))


def allocate_for_two(size):
    if size > 2:
        raise torch.OutOfMemoryError("out of memory")


def test_unequal_sizes_are_told_of_on_all_ranks_when_memory_runs_out():
    launch(unequal_sizes, 3, timeout_seconds=120)


def wrapped_model():
    with pytest.raises(InputError, match="expected the module itself, got DistributedDataParallel"):
        DynamicBatchSize(replicate(tiny_net()), micro_batch_size=1)


def test_a_model_whose_ranks_would_wait_for_each_other_is_refused():
    launch(wrapped_model, 1)
