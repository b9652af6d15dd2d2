"""Each planted fault is recognised and named, and healthy runs raise no alarm."""

import math
import random

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.train import (
    NoProgressDetector,
    PlateauDetector,
    SpikeDetector,
    default_detectors,
    find_faults,
)

VOCAB_SIZE = 10


def digits():
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    return torch.tensor(inputs, dtype=torch.float32) / 16, torch.tensor(labels)


def losses_on_digits(seed, *, num_steps=900, disturb=lambda step, optimizer, labels: labels, lr=0.1):
    """Train a small network on scikit-learn's digits by SGD with momentum; return the loss of each step."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    inputs, labels = digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, VOCAB_SIZE))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = []
    for step in range(num_steps):
        rows = torch.randint(len(labels), (32,), generator=generator)
        targets = disturb(step, optimizer, labels[rows])
        loss = nn.functional.cross_entropy(model(inputs[rows]), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def falling(num_steps, seed=0, noise=0.05, start=0):
    """A loss that falls as a power of the steps, with noise, as that of a language model does."""
    draw = random.Random(seed)
    return [1.7 + 9 * (step + 10) ** -0.3 + draw.gauss(0, noise) for step in range(start, start + num_steps)]


def faults(losses, *detectors):
    return [finding.fault for finding in find_faults(losses, *detectors)]


def assert_healthy(losses):
    assert losses[-1] < 0.5
    assert faults(losses, *default_detectors(num_classes=VOCAB_SIZE)) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_a_healthy_run_on_real_data_raises_no_alarm(seed):
    assert_healthy(losses_on_digits(seed, num_steps=450))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_a_long_healthy_run_on_real_data_raises_no_alarm(seed):
    assert_healthy(losses_on_digits(seed, num_steps=850))


def test_a_hundred_noisy_falling_series_raise_one_alarm_at_most():
    found = [fault for seed in range(100) for fault in faults(falling(1700, seed))]
    assert len(found) <= 1  # in 170,000 steps


def test_a_learning_rate_too_high_for_a_step_is_a_spike():
    def one_wild_step(step, optimizer, labels):
        optimizer.param_groups[0]["lr"] = 30.0 if step == 150 else 0.1
        return labels

    found = find_faults(losses_on_digits(0, num_steps=190, disturb=one_wild_step))
    spikes = [finding for finding in found if finding.fault == "spike"]
    assert 151 <= spikes[0].step <= 160
    assert "learning rate" in str(spikes[0])


def test_damaged_labels_are_a_spike():
    def shifted_labels(step, optimizer, labels):
        return (labels + 1) % VOCAB_SIZE if 150 <= step < 156 else labels

    found = find_faults(losses_on_digits(1, num_steps=190, disturb=shifted_labels))
    assert [finding.fault for finding in found][:1] == ["spike"]
    assert 152 <= found[0].step <= 158


def test_one_hard_batch_is_no_spike_and_three_are():
    losses = falling(300)
    losses[200] = 50.0
    assert faults(losses) == []
    losses[201] = losses[202] = 50.0
    assert faults(losses) == ["spike"]


def test_each_spike_is_said_once_however_long_it_lasts():
    losses = [1.0 + 0.01 * (step % 7) for step in range(200)]
    losses[80:140] = [9.0] * 60
    assert faults(losses, SpikeDetector()) == ["spike"]


def test_a_loss_that_stops_falling_is_a_plateau_and_is_said_when_training_as_long_again_was_in_vain():
    (last,) = falling(1, start=500, noise=0)
    losses = falling(500) + [last + 0.05 * math.sin(step) for step in range(1200)]
    found = find_faults(losses)
    assert [finding.fault for finding in found] == ["plateau"]
    assert found[0].step == 1600


def test_a_resumed_run_is_not_called_a_plateau_for_its_first_steps():
    detectors = default_detectors(num_classes=50_000)
    losses = falling(2000, start=100_000)
    updates = [d.update(100_000 + i, {"loss": x}) for i, x in enumerate(losses) for d in detectors]
    assert not any(updates)


def test_a_loss_below_the_target_is_success():
    losses = [2.0] * 800
    assert "plateau" in faults(losses, PlateauDetector())
    assert faults(losses, PlateauDetector(target_loss=2.5)) == []


def test_a_step_size_of_nearly_zero_is_no_progress():
    losses = losses_on_digits(0, num_steps=200, lr=1e-7)
    (finding,) = find_faults(losses, *default_detectors(num_classes=VOCAB_SIZE))
    assert (finding.fault, finding.step) == ("no progress", 199)
    assert "ln(classes) = 2.303" in finding.seen


def test_labels_without_relation_to_the_inputs_are_no_progress():
    def shuffled(step, optimizer, labels):
        return labels[torch.randperm(len(labels))]

    losses = losses_on_digits(0, num_steps=200, disturb=shuffled, lr=0.01)
    assert faults(losses, NoProgressDetector(VOCAB_SIZE)) == ["no progress"]


def test_a_loss_that_stays_elsewhere_is_no_progress_too():
    assert faults([7.0 + 0.1 * (step % 5) for step in range(200)], NoProgressDetector()) == ["no progress"]


@pytest.mark.parametrize(
    ("step", "values", "cause"),
    [
        (0, {"loss": math.nan}, "the data or the initial weights"),
        (5, {"loss": math.inf}, "a learning rate too high"),
        (5, {"loss": 1.0, "grad_norm": math.inf}, "overflow in the backward pass"),
    ],
)
def test_what_is_not_finite_is_said_once_with_a_cause_that_fits(step, values, cause):
    detector = default_detectors()[0]
    finding = detector.update(step, values)
    assert cause in finding.cause
    assert detector.update(step + 1, values) is None
    assert detector.update(step + 2, {"loss": 1.0}) is None
    assert detector.update(step + 3, values) is not None


def test_too_high_a_learning_rate_is_found_when_it_ends_in_nan():
    assert "not finite" in faults(losses_on_digits(0, num_steps=20, lr=1e30))


def test_a_nan_does_not_blind_the_other_detectors():
    losses = falling(300)
    losses[150] = math.nan
    losses[200:204] = [50.0] * 4
    assert faults(losses) == ["not finite", "spike"]


@pytest.mark.parametrize(
    ("detector", "options"),
    [
        (SpikeDetector, {"window": 0}),
        (PlateauDetector, {"window": 1}),
        (NoProgressDetector, {"num_classes": 1}),
    ],
)
def test_a_detector_without_room_is_an_error(detector, options):
    with pytest.raises(InputError, match="too small for a detector"):
        detector(**options)
