"""Counted calls and bytes against what theory says, in real runs on 2 and 4 processes."""

import itertools

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import (
    average_gradients,
    average_gradients_bucketed,
    broadcast_parameters,
    count_communication,
    launch,
    replicate,
    ring_bytes_sent,
)

SIZES = (6, 16, 16, 3)
NUM_TENSORS = 2 * (len(SIZES) - 1)
GRADIENT_BYTES = 8 * sum(fan_in * fan_out + fan_out for fan_in, fan_out in itertools.pairwise(SIZES))


def tiny_model():
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]).double()


def backward(model):
    model(torch.ones(2, SIZES[0], dtype=torch.float64)).sum().backward()


def counted(use):
    """Return what `use(model)` communicates after a backward pass."""
    model = tiny_model()
    backward(model)
    with count_communication() as communication:
        use(model)
    return communication


@pytest.mark.parametrize("world_size", [2, 4])
def test_naive_averaging_calls_once_a_parameter_and_sends_the_gradient(world_size):
    for communication in launch(counted, world_size, average_gradients):
        assert communication.calls == {"all_reduce": NUM_TENSORS}
        assert communication.payload_bytes == {"all_reduce": GRADIENT_BYTES}
        assert communication.ring_bytes == pytest.approx(2 * (world_size - 1) / world_size * GRADIENT_BYTES)


def test_one_bucket_sends_the_same_bytes_in_one_call():
    for communication in launch(counted, 2, average_gradients_bucketed):
        assert communication.calls == {"all_reduce": 1}
        assert communication.payload_bytes == {"all_reduce": GRADIENT_BYTES}


def in_buckets_of_one_layer(model):
    average_gradients_bucketed(model, bucket_bytes=8 * (16 * 16 + 16))


def test_small_buckets_split_the_same_bytes():
    # From the last layer on: 67 numbers, to which the next weight's 256 would be too many for 272; and so on.
    for communication in launch(counted, 2, in_buckets_of_one_layer):
        assert [call.payload_bytes for call in communication.records] == [8 * 67, 8 * (256 + 16), 8 * 96]
        assert communication.payload_bytes == {"all_reduce": GRADIENT_BYTES}


def test_weights_cost_one_more_call_of_eight_bytes():
    for communication in launch(counted, 2, lambda model: average_gradients(model, num_valid=3)):
        assert communication.calls == {"all_reduce": NUM_TENSORS + 1}
        assert communication.payload_bytes == {"all_reduce": GRADIENT_BYTES + 8}


def test_broadcasting_parameters_sends_each_once():
    for communication in launch(counted, 4, broadcast_parameters):
        assert communication.calls == {"broadcast": NUM_TENSORS}
        assert communication.payload_bytes == {"broadcast": GRADIENT_BYTES}


def ddp_steps(no_sync):
    """Return what each of three backward passes of DDP communicates."""
    model = replicate(tiny_model(), bucket_cap_mb=0.001)
    counts = []
    for step in range(3):
        with count_communication() as communication:
            if no_sync and step < 2:
                with model.no_sync():
                    backward(model)
            else:
                backward(model)
        counts.append(communication)
    return counts


@pytest.mark.parametrize("world_size", [2, 4])
def test_ddp_reduces_the_gradient_once_a_backward_pass(world_size):
    for steps in launch(ddp_steps, world_size, no_sync=False):
        for step in steps:
            assert step.payload_bytes["all_reduce"] == GRADIENT_BYTES
            assert 1 <= step.calls["all_reduce"] <= NUM_TENSORS


def test_ddp_without_synchronisation_sends_nothing_until_the_last_pass():
    for first, second, last in launch(ddp_steps, 2, no_sync=True):
        assert first.calls["all_reduce"] == second.calls["all_reduce"] == 0
        assert first.ring_bytes == second.ring_bytes == 0
        assert last.payload_bytes["all_reduce"] == GRADIENT_BYTES


def every_collective():
    rank, size = dist.get_rank(), dist.get_world_size()
    mine, whole = torch.zeros(4), [torch.zeros(4) for _ in range(size)]
    with count_communication() as communication:
        dist.all_reduce(mine)
        dist.broadcast(mine, 0)
        dist.reduce(mine, 0)
        dist.all_gather(whole, mine)
        dist.reduce_scatter(mine, whole)
        dist.all_to_all_single(torch.zeros(4 * size), torch.zeros(4 * size))
        dist.gather(mine, whole if rank == 0 else None)
        dist.scatter(mine, whole if rank == 0 else None)
        dist.barrier()
        if rank == 0:
            dist.send(mine, 1)
        elif rank == 1:
            dist.recv(mine, 0)
    return communication


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_collective_is_counted_with_its_whole_payload(world_size):
    part, whole = 16, 16 * world_size
    expected = {"all_reduce": part, "broadcast": part, "reduce": part, "barrier": 0}
    expected |= dict.fromkeys(["all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"], whole)
    for rank, communication in enumerate(launch(every_collective, world_size)):
        point_to_point = {0: {"send": part}, 1: {"recv": part}}.get(rank, {})
        assert communication.payload_bytes == expected | point_to_point
        assert set(communication.calls.values()) == {1}


def functional_collectives():
    from torch.distributed import _functional_collectives as functional
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    tensor = torch.ones(8, 4)
    with count_communication() as by_function:
        functional.all_reduce(tensor, "sum", mesh.get_group()).sum()
    sharded = distribute_tensor(tensor, mesh, [Shard(0)])
    with count_communication() as by_dtensor:
        sharded.redistribute(mesh, [Replicate()]).to_local().sum()
    return by_function, by_dtensor


def a_loss_of_divided_logits():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.distributed.tensor.parallel import loss_parallel

    mesh = init_device_mesh("cpu", (2,))
    logits = DTensor.from_local(torch.randn(5, 3, dtype=torch.float64), mesh, [Shard(1)])  # 3 of 6 classes
    with count_communication() as communication, loss_parallel():
        torch.nn.functional.cross_entropy(logits, torch.arange(5))
    return communication


def test_what_a_dtensor_sends_inside_one_of_its_operators_is_counted():
    # The largest logit, the sum of exponentials and the label's logit of each of the five rows.
    for communication in launch(a_loss_of_divided_logits, 2):
        assert communication.calls == {"all_reduce": 3}
        assert communication.payload_bytes == {"all_reduce": 3 * 5 * 8}


def test_collectives_of_dtensor_are_counted():
    for by_function, by_dtensor in launch(functional_collectives, 2):
        assert by_function.payload_bytes == {"all_reduce": 128}
        assert by_dtensor.payload_bytes == {"all_gather": 128}


def fully_sharded_step():
    from torch.distributed.fsdp import fully_shard

    model = nn.Linear(8, 8, bias=False)
    fully_shard(model)
    with count_communication() as communication:
        model(torch.ones(3, 8)).sum().backward()
    return communication


def test_fsdp_gathers_the_parameters_and_scatters_the_gradient():
    for communication in launch(fully_sharded_step, 2):
        assert communication.payload_bytes["reduce_scatter"] == 4 * 64
        assert (
            communication.payload_bytes["all_gather"] == 4 * 64
        )  # the root keeps them until the backward pass


def in_a_group():
    pair = dist.new_group([0, 1])
    with count_communication() as communication:
        if dist.get_rank() < 2:
            dist.all_reduce(torch.ones(10), group=pair)
    return communication


def test_the_size_of_a_group_counts_not_that_of_the_world():
    inside, _, outside, _ = launch(in_a_group, 4)
    assert inside.ring_bytes == 40  # 2 (2 - 1) / 2 of 40 bytes
    assert outside.records == []


def ring_all_reduce_by_hand(payload_elements):
    """The oracle: a ring of sends. Return the bytes that this rank sent, and whether the sum is right."""
    rank, size = dist.get_rank(), dist.get_world_size()
    chunks = list(torch.full((payload_elements,), float(rank + 1), dtype=torch.float64).chunk(size))
    sent = 0
    for phase in range(2):
        for step in range(size - 1):
            out = (rank - step + phase) % size
            into = (out - 1) % size
            arrived = torch.empty_like(chunks[into])
            work = dist.isend(chunks[out].clone(), (rank + 1) % size)
            dist.recv(arrived, (rank - 1) % size)
            work.wait()
            sent += chunks[out].nbytes
            chunks[into] = arrived if phase else chunks[into] + arrived
    return sent, bool((torch.cat(chunks) == size * (size + 1) / 2).all())


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ring_formula_is_what_a_ring_written_by_hand_sends(world_size):
    for sent, right in launch(ring_all_reduce_by_hand, world_size, 48):
        assert right
        assert sent == ring_bytes_sent("all_reduce", 48 * 8, world_size)


def test_one_rank_sends_nothing():
    for collective in ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "barrier"):
        assert ring_bytes_sent(collective, 1000, 1) == 0


def test_a_ring_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    for size in (2, 3, 8):
        halves = ring_bytes_sent("reduce_scatter", 960, size) + ring_bytes_sent("all_gather", 960, size)
        assert ring_bytes_sent("all_reduce", 960, size) == pytest.approx(halves)


def test_unknown_collectives_and_sizes_are_errors():
    with pytest.raises(InputError, match="all_reduce"):
        ring_bytes_sent("allreduce", 1, 2)
    with pytest.raises(InputError):
        ring_bytes_sent("all_reduce", 1, 0)


def test_the_table_names_each_collective():
    text = str(launch(every_collective, 2)[0])
    assert "all_gather" in text
    assert "sent on a ring" in text
