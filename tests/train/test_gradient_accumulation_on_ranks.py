"""Accumulation under real data parallelism: equal to one process, and one synchronisation a step."""

import pytest
import torch

from coursekit.parallel import RankError, launch


def step_on_ranks(wrapping, rows_per_rank, micro_batch_size, defect=""):
    """Run on each rank: return (full gradient, gradient reductions made, this rank's part of the loss)."""
    import contextlib

    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils._python_dispatch import TorchDispatchMode

    from coursekit.train import accumulate_gradients, all_reduce_count, count_valid, split_into_micro_batches

    torch.manual_seed(0)
    bare = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 7)).double()
    reductions, communication = [], contextlib.nullcontext()
    if wrapping == "ddp":
        model = DistributedDataParallel(bare)

        def counting_hook(state, bucket):
            reductions.append(bucket.buffer().nbytes)
            mean = bucket.buffer() / dist.get_world_size()
            return dist.all_reduce(mean, async_op=True).get_future().then(lambda done: done.value()[0])

        model.register_comm_hook(None, counting_hook)
    else:

        class CountReduceScatter(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if "reduce_scatter" in str(func):
                    reductions.append(str(func))
                return func(*args, **(kwargs or {}))

        model, communication = fully_shard(bare), CountReduceScatter()

    input_ids, labels = rows_per_rank[dist.get_rank()]
    local = count_valid(labels)
    num_valid = local * dist.get_world_size() if defect == "local count" else all_reduce_count(local)

    def loss_sum(micro_batch):
        logits = model(micro_batch[0]).flatten(0, 1)
        return nn.functional.cross_entropy(logits, micro_batch[1].flatten(), reduction="sum")

    with communication:
        loss = accumulate_gradients(
            loss_sum,
            split_into_micro_batches((input_ids, labels), micro_batch_size),
            num_valid=num_valid,
            dp_size=None if defect == "no dp_size" else dist.get_world_size(),
            module=None if defect == "no deferral" else model,
        )
    gradients = [
        p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in bare.parameters()
    ]
    return torch.cat([g.flatten() for g in gradients]), len(reductions), float(loss)


def rows(num_valid_per_row, seed):
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(7, (len(num_valid_per_row), 6), generator=generator)
    labels = torch.randint(7, (len(num_valid_per_row), 6), generator=generator)
    for row, num_valid in enumerate(num_valid_per_row):
        labels[row, num_valid:] = -100
    return input_ids, labels


def one_process(rows_per_rank):
    """The oracle: the joined batch, the mean over its valid positions, no coursekit."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(7, 5), torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 7)
    ).double()
    input_ids = torch.cat([x for x, _ in rows_per_rank])
    labels = torch.cat([y for _, y in rows_per_rank])
    valid = labels != -100
    log_probs = model(input_ids)[valid].log_softmax(-1)
    loss = -log_probs[torch.arange(int(valid.sum())), labels[valid]].mean()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), loss.item()


UNEQUAL = [rows([6, 1, 3, 2], seed=1), rows([1, 2, 1, 5], seed=2)]


@pytest.mark.parametrize("world_size", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("wrapping", ["ddp", "fsdp2"])
def test_ranks_with_unequal_counts_equal_one_process_and_reduce_once(wrapping, world_size):
    rows_per_rank = [*UNEQUAL, rows([0, 6, 4, 1], seed=3), rows([2, 2, 0, 3], seed=4)][:world_size]
    expected, expected_loss = one_process(rows_per_rank)
    results = launch(step_on_ranks, world_size, wrapping, rows_per_rank, 1, timeout_seconds=120)
    for gradient, reductions, _ in results:
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
        assert reductions == 1
    assert sum(loss for *_, loss in results) == pytest.approx(expected_loss, rel=1e-12)


def test_ranks_with_different_numbers_of_micro_batches_equal_one_process_under_ddp():
    uneven = [rows([6, 1, 3, 2, 4], seed=1), rows([1, 2], seed=2)]
    expected, _ = one_process(uneven)
    for gradient, reductions, _ in launch(step_on_ranks, 2, "ddp", uneven, 1, timeout_seconds=120):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
        assert reductions == 1


@pytest.mark.parametrize("wrapping", ["ddp", "fsdp2"])
def test_control_without_deferral_every_micro_step_reduces(wrapping):
    results = launch(step_on_ranks, 2, wrapping, UNEQUAL, 1, "no deferral", timeout_seconds=120)
    assert [reductions for _, reductions, _ in results] == [4, 4]


@pytest.mark.parametrize("wrapping", ["ddp", "fsdp2"])
def test_a_module_that_averages_over_ranks_needs_their_number(wrapping):
    """Without it the gradient was as many times too small, and a run with Adam hardly showed it."""
    with pytest.raises(RankError, match="loss is not multiplied by their number: expected dp_size=2"):
        launch(step_on_ranks, 2, wrapping, UNEQUAL, 1, "no dp_size", timeout_seconds=120)


def test_control_each_rank_dividing_by_its_own_count_is_wrong():
    expected, _ = one_process(UNEQUAL)
    for gradient, *_ in launch(step_on_ranks, 2, "ddp", UNEQUAL, 1, "local count", timeout_seconds=120):
        assert (gradient - expected).norm() > 0.05 * expected.norm()
