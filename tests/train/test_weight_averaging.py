"""The moving average against its closed form, and the model's own weights back bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from coursekit.errors import InputError
from coursekit.train import average_weights, make_optimizer, update_average_naive, use_average

DECAY, STEPS = 0.8, 12


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()


def train(model, after_step, num_steps=STEPS):
    optimizer = make_optimizer("adamw", model.parameters(), lr=0.1)
    for _ in range(num_steps):
        model(torch.randn(8, 3, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        after_step(model)


def closed_form(history):
    """θ̄ = d^n θ_0 + (1 − d) Σ_i d^(n − i) θ_i, over all weights that were seen."""
    n = len(history) - 1
    tail = sum((1 - DECAY) * DECAY ** (n - i) * history[i] for i in range(1, n + 1))
    return DECAY**n * history[0] + tail


def test_both_averages_are_the_closed_form():
    model, naive, history = small_model(), {}, []
    average = average_weights(model, decay=DECAY)

    def after_step(model):
        history.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        average.update_parameters(model)
        update_average_naive(naive, model, decay=DECAY)

    train(model, after_step)
    for name, parameter in average.module.named_parameters():
        expected = closed_form([weights[name] for weights in history])
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(naive[name], expected, rtol=1e-12, atol=1e-14)


def test_control_an_average_that_starts_from_zero_differs():
    model = small_model()
    zero = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    average = average_weights(model, decay=DECAY)
    for _ in range(3):
        average.update_parameters(model)
        update_average_naive(zero, model, decay=DECAY)
    assert not torch.allclose(zero["0.weight"], average.module[0].weight, rtol=0.1)


def test_buffers_are_the_models_and_not_averaged():
    model = small_model()
    average = average_weights(model, decay=DECAY)
    train(model, average.update_parameters)
    for name, buffer in average.module.named_buffers():
        assert torch.equal(buffer, dict(model.named_buffers())[name])
    assert average.module[1].num_batches_tracked == STEPS


def tensors(model):
    return copy.deepcopy([*model.parameters(), *model.buffers()])


def test_the_block_computes_with_the_average_and_gives_the_own_weights_back():
    model = small_model()
    model.register_buffer("not_saved", torch.ones(1), persistent=False)
    average = average_weights(model, decay=DECAY)
    train(model, average.update_parameters)
    before, identities = tensors(model), [id(parameter) for parameter in model.parameters()]
    inputs = torch.randn(8, 3, dtype=torch.float64)
    with use_average(model.eval(), average):
        assert torch.equal(model(inputs), average.module.eval()(inputs))
        assert not torch.equal(model[0].weight, before[0])
        model(inputs).sum().backward()  # whether gradients are made is the caller's choice
        train(model.train(), lambda model: None, num_steps=2)
    assert all(torch.equal(a, b) for a, b in zip(tensors(model), before, strict=True))
    assert [id(parameter) for parameter in model.parameters()] == identities


def test_own_weights_come_back_after_an_error():
    model = small_model()
    average = average_weights(model, decay=DECAY)
    train(model, average.update_parameters)
    before = tensors(model)
    with pytest.raises(ZeroDivisionError), use_average(model, average):
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(tensors(model), before, strict=True))


def test_a_resumed_average_goes_on_exactly():
    model = small_model()
    average, resumed = average_weights(model, decay=DECAY), average_weights(model, decay=DECAY)
    train(model, average.update_parameters)
    resumed.load_state_dict(copy.deepcopy(average.state_dict()))
    train(model, lambda model: (average.update_parameters(model), resumed.update_parameters(model)))
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), resumed.parameters(), strict=True))


def test_tied_weights_are_averaged_once_and_stay_tied():
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    model["head"].weight = model["embedding"].weight
    average = average_weights(model, decay=0.5)
    for value in (1.0, 2.0):
        nn.init.constant_(model["head"].weight, value)
        average.update_parameters(model)
    with use_average(model, average):
        assert model["head"].weight is model["embedding"].weight
        assert (model["head"].weight == 1.5).all()


def test_an_average_of_nothing_or_of_another_model_is_an_error():
    model = small_model()
    average = average_weights(model)
    with pytest.raises(InputError, match=r"call average\.update_parameters"), use_average(model, average):
        pass
    average.update_parameters(model)
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    says = r"another model: got \['0\.bias', '0\.weight', '1\.bias'\] differ"
    with pytest.raises(InputError, match=says), use_average(other, average):
        pass


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_an_error(decay):
    with pytest.raises(InputError, match="0 <= decay < 1"):
        average_weights(small_model(), decay=decay)


def test_an_average_in_16_bits_is_refused_since_it_would_stand_still():
    model = small_model().bfloat16()
    with pytest.raises(InputError, match=r"got 0\.weight in torch\.bfloat16; keep the weights in float32"):
        average_weights(model, decay=DECAY)
    # What torch's own average does: the model moves by a tenth each step, the average not at all.
    average = AveragedModel(nn.Linear(1, 1).bfloat16(), multi_avg_fn=get_ema_multi_avg_fn(0.999))
    moving = nn.Linear(1, 1).bfloat16()
    nn.init.ones_(moving.weight)
    for _ in range(100):
        average.update_parameters(moving)
        nn.init.constant_(moving.weight, 1.5)
    assert average.module.weight.item() == 1.0
