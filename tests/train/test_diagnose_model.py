"""Faults of the model's own tensors: dead units, gradients that are missing, weights that stay put."""

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.train import find_gradient_faults, watch_dead_units, watch_updates


def network(kill=()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].bias[list(kill)] = -100.0
    return model


def test_exactly_the_planted_dead_units_are_found():
    model = network(kill=(2, 5))
    with watch_dead_units(model) as units:
        assert units.dead == {}
        for batch in torch.randn(20, 50, 4, generator=torch.Generator().manual_seed(1)):
            model(batch)
    assert units.dead == {"1": [2, 5]}


def test_a_unit_active_for_one_sample_of_one_batch_is_alive():
    model = network(kill=(2,))
    with watch_dead_units(model) as units:
        model(torch.zeros(3, 4))
        model(torch.cat([torch.zeros(3, 4), 1e4 * model[0].weight.detach()[2:3].sign()]))
    assert 2 not in units.dead["1"]


def test_channels_are_the_units_of_images_and_the_last_dim_those_of_sequences():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU())
    with torch.no_grad():
        model[0].bias[1] = -100.0
    with watch_dead_units(model) as units:
        model(torch.randn(8, 1, 5, 7, generator=torch.Generator().manual_seed(0)))
    assert units.dead["1"] == [1]
    model = network(kill=(3,))
    with watch_dead_units(model) as units:
        model(torch.randn(8, 50, 4, generator=torch.Generator().manual_seed(0)))
    assert units.dead["1"] == [3]


def test_more_than_half_dead_is_said_with_the_modules_name():
    model = network(kill=range(5))
    with watch_dead_units(model) as units:
        model(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    (finding,) = units.findings()
    assert str(finding).startswith("62 % of the units of 1 were never active. Likely cause: ")
    assert units.findings(max_dead=0.7) == []


def test_other_modules_are_watched_by_name_and_the_hooks_come_off():
    model = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU())
    with watch_dead_units(model, modules=["0"]) as units:
        model(torch.randn(5, 4))
    before = units.dead
    model(torch.full((5, 4), 100.0))
    assert units.dead == before
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("modules", "message"), [((), "expected modules of the model, got no ReLU"), (("9",), r"got \['9'\]")]
)
def test_nothing_to_watch_is_an_error(modules, message):
    model = nn.Sequential(nn.Linear(4, 8))
    with pytest.raises(InputError, match=message), watch_dead_units(model, modules=modules):
        pass


def backward(model, loss=lambda output: output.square().mean()):
    loss(model(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))).backward()
    return {finding.fault: finding.seen for finding in find_gradient_faults(model)}


def test_a_healthy_backward_pass_has_no_fault():
    assert backward(network()) == {}


def test_a_detached_part_has_no_gradient_and_a_dead_layer_a_zero_one():
    model = network()
    model.insert(2, nn.Identity())
    model[2].register_forward_hook(lambda module, inputs, output: output.detach())
    assert backward(model) == {"no gradient": "0.weight, 0.bias: no gradient"}
    assert backward(network(kill=range(8))) == {"zero gradient": "0.weight, 0.bias, 2.weight: zero gradient"}


def test_a_frozen_parameter_is_no_fault():
    model = network()
    model[0].requires_grad_(False)
    assert backward(model) == {}


def test_an_overflow_is_named():
    found = backward(network(), loss=lambda output: (output * float("inf")).mean())
    assert "gradient not finite" in found
    assert found["gradient not finite"].endswith("gradient not finite")


def step_of(optimizer, model):
    with watch_updates(model) as updates:
        backward(model)
        optimizer.step()
    return updates


def test_a_step_that_reaches_every_parameter_has_no_finding():
    model = network()
    updates = step_of(torch.optim.SGD(model.parameters(), lr=0.1), model)
    assert (updates.unchanged, updates.finding) == ([], None)


def test_a_layer_that_the_optimizer_does_not_hold_is_named():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[2] = nn.Linear(8, 2)  # the famous order: the head is replaced after the optimizer was made
    updates = step_of(optimizer, model)
    assert updates.unchanged == ["2.weight", "2.bias"]
    assert "the optimizer holds other parameters" in str(updates.finding)


def test_an_update_below_the_precision_of_bfloat16_is_found():
    model = network().bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    with watch_updates(model) as updates:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert len(updates.unchanged) == 4
