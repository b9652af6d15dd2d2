"""GPipe by hand on 2 and 4 real gloo processes against the model in one process, in float64."""

import itertools

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.parallel import count_communication, gpipe_step_naive, launch

ROWS = [2, 1, 5]  # of the micro-batches: unequal


def tiny_model():
    torch.manual_seed(0)
    sizes = [3, 7, 7, 7, 2]
    layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*layers).double()


def micro_batches():
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, 3, generator=generator, dtype=torch.float64),
            torch.randint(2, (n,), generator=generator),
        )
        for n in ROWS
    ]


def loss_sum(output, targets):
    return nn.functional.cross_entropy(output, targets, reduction="sum")


def mean_gradients():
    """The oracle: one backward pass of the joined batch."""
    model = tiny_model()
    inputs, targets = map(torch.cat, zip(*micro_batches(), strict=True))
    loss = nn.functional.cross_entropy(model(inputs), targets)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


def step_on_rank(own_count=False):
    """One step on stage `rank`; with `own_count` the famous bug, each micro-batch divided by its own rows."""
    per_rank = 4 // dist.get_world_size()
    stage = tiny_model()[dist.get_rank() * per_rank : (dist.get_rank() + 1) * per_rank]

    def mean_of_means(output, targets):
        return loss_sum(output, targets) / len(targets) / len(ROWS) * sum(ROWS)

    with count_communication() as communication:
        loss = gpipe_step_naive(
            stage,
            micro_batches(),
            loss_sum=mean_of_means if own_count else loss_sum,
            num_valid=sum(ROWS),
            hidden_shape=[7],
        )
    return loss, [p.grad for p in stage.parameters()], communication


@pytest.mark.parametrize("world_size", [2, 4])
def test_gpipe_by_hand_equals_the_whole_model(world_size):
    results = launch(step_on_rank, world_size)
    loss, expected = mean_gradients()
    torch.testing.assert_close(
        [grad for _, grads, _ in results for grad in grads], expected, rtol=1e-12, atol=1e-15
    )
    assert [result[0] for result in results[:-1]] == [None] * (world_size - 1)
    assert results[-1][0].item() == pytest.approx(loss, rel=1e-12)


def test_oracle_rejects_the_mean_of_means():
    gradients = [grad for _, grads, _ in launch(step_on_rank, 2, own_count=True) for grad in grads]
    with pytest.raises(AssertionError):
        torch.testing.assert_close(gradients, mean_gradients()[1], rtol=1e-3, atol=1e-6)


def test_each_border_is_crossed_once_each_way_by_every_row():
    border_bytes = sum(ROWS) * 7 * 8
    first, second, third, fourth = (result[2].payload_bytes for result in launch(step_on_rank, 4))
    assert first == fourth == {"send": border_bytes, "recv": border_bytes}
    assert second == third == {"send": 2 * border_bytes, "recv": 2 * border_bytes}
