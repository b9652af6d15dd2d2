"""Corpus, checkpoints and how often to write them, against files and failures that were drawn."""

import io
import random

import pytest
import torch

from coursekit import plan
from coursekit.models import GPT, GPTConfig


def test_youngs_interval_loses_least():
    times = {"checkpoint_seconds": 20, "seconds_between_failures": 3 * 3600}
    best = plan.seconds_between_checkpoints(**times)
    least = plan.lost_share(best, **times)
    assert least == pytest.approx(2 * 20 / best)  # writing costs then as much as doing again
    assert all(plan.lost_share(best * factor, **times) > least for factor in (0.5, 0.9, 1.1, 2))


def test_a_checkpoint_holds_master_weights_and_moments():
    assert plan.checkpoint_bytes(1, recipe="mixed_16") == plan.checkpoint_bytes(1, recipe="mixed_20") == 12
    assert plan.checkpoint_bytes(1, recipe="fp32_16") == plan.checkpoint_bytes(1, recipe="autocast_18") == 12
    assert plan.checkpoint_bytes(1, recipe="bf16_only") == 6


def test_a_file_has_the_bytes_that_are_predicted():
    model = GPT(GPTConfig(512, 64, d_model=128, n_layers=2, n_heads=4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    predicted = plan.checkpoint_bytes(sum(p.numel() for p in model.parameters()), recipe="fp32_16")
    assert file.getbuffer().nbytes == pytest.approx(predicted, rel=0.02)


def lost_to_failures(interval, checkpoint_seconds, seconds_between_failures, num_intervals=20_000):
    """Return time lost over time worked, with failures drawn at random."""
    draw, now, done = random.Random(0), 0.0, 0
    failure = draw.expovariate(1 / seconds_between_failures)
    while done < num_intervals:
        if now + interval + checkpoint_seconds <= failure:
            now, done = now + interval + checkpoint_seconds, done + 1
        else:
            now = failure
            failure += draw.expovariate(1 / seconds_between_failures)
    return now / (done * interval) - 1


def test_drawn_failures_cost_what_the_first_order_says():
    times = {"checkpoint_seconds": 5, "seconds_between_failures": 20_000}
    drawn = lost_to_failures(450, **times)
    assert drawn == pytest.approx(plan.lost_share(450, **times), rel=0.1)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_that_cannot_be_are_refused(seconds):
    with pytest.raises(ValueError, match="expected more than 0 seconds"):
        plan.lost_share(seconds, checkpoint_seconds=1, seconds_between_failures=10)
