"""Update rules, to read and to use, against torch.optim or a NumPy transcription of the paper."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.train import (
    LAMB,
    Lion,
    adadelta_naive,
    adagrad_naive,
    adam_naive,
    adamw_naive,
    lamb_naive,
    lion_naive,
    make_optimizer,
    muon_naive,
    rmsprop_naive,
    sgd_naive,
)

SHAPES = [(), (1,), (5,), (3, 4), (4, 3), (2, 3, 2)]
EXACT = {"rtol": 1e-12, "atol": 1e-14}  # atol: elements that pass through zero


def start(shape):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def gradient(theta, step):
    """A deterministic gradient that depends on θ, of changing sign and size."""
    wave = torch.arange(theta.numel(), dtype=torch.float64).view(theta.shape)
    return theta * 0.3 + torch.sin(wave + step) * 10.0 ** (step % 3 - 1)


def run_naive(rule, shape, *, steps=20, **options):
    theta, state = start(shape), {}
    for step in range(steps):
        theta = rule(theta, gradient(theta, step), state=state, **options)
    return theta


def run_torch(make, shape, *, steps=20, **options):
    theta = nn.Parameter(start(shape))
    optimizer = make([theta], **options)
    for step in range(steps):
        theta.grad = gradient(theta.detach(), step)
        optimizer.step()
    return theta.detach()


RULES = {
    "sgd": (sgd_naive, torch.optim.SGD, {}),
    "momentum": (sgd_naive, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (sgd_naive, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (adagrad_naive, torch.optim.Adagrad, {}),
    "adadelta": (adadelta_naive, torch.optim.Adadelta, {}),
    "rmsprop": (rmsprop_naive, torch.optim.RMSprop, {}),
    "adam": (adam_naive, torch.optim.Adam, {"betas": (0.8, 0.95)}),
    "adamw": (adamw_naive, torch.optim.AdamW, {"betas": (0.8, 0.95)}),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_each_rule_to_read_is_torchs(name, shape):
    rule, torchs, options = RULES[name]
    options = options | {"lr": 0.05, "weight_decay": 0.1}
    expected = run_torch(torchs, shape, **options)
    torch.testing.assert_close(run_naive(rule, shape, **options), expected, **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_defaults_are_torchs(name):
    rule, torchs, _ = RULES[name]
    torch.testing.assert_close(run_naive(rule, (3, 4), lr=0.05), run_torch(torchs, (3, 4), lr=0.05), **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_the_optimizer_made_by_name_steps_as_the_rule_to_read(name):
    rule, torchs, options = RULES[name]
    options = options | {"lr": 0.05, "weight_decay": 0.1}

    def make(parameters, **options):
        return make_optimizer(torchs.__name__.lower(), parameters, **options)

    expected = run_naive(rule, (3, 4), **options)
    torch.testing.assert_close(run_torch(make, (3, 4), **options), expected, **EXACT)


def test_control_adam_without_bias_correction_fails():
    def uncorrected(theta, g, *, state, lr, weight_decay):
        g = g + weight_decay * theta
        m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
        v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
        return theta - lr * m / (v.sqrt() + 1e-8)

    options = {"lr": 0.05, "weight_decay": 0.1}
    expected = run_torch(torch.optim.Adam, (3, 4), **options)
    assert not torch.allclose(run_naive(uncorrected, (3, 4), **options), expected, rtol=1e-2)


def test_control_l2_in_the_gradient_is_not_adamw():
    options = {"lr": 0.05, "weight_decay": 0.1}
    expected = run_torch(torch.optim.AdamW, (3, 4), **options)
    assert not torch.allclose(run_naive(adam_naive, (3, 4), **options), expected, rtol=1e-3)


def lamb_by_numpy(theta, steps, lr, betas, eps, weight_decay):
    """You et al. 2020, algorithm 2, line by line, with φ the identity."""
    x, m, v = theta.numpy().copy(), np.zeros(theta.shape), np.zeros(theta.shape)
    for t in range(1, steps + 1):
        g = gradient(torch.as_tensor(x), t - 1).numpy()
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        r = m_hat / (np.sqrt(v_hat) + eps)
        update = r + weight_decay * x
        x = x - lr * np.sqrt((x * x).sum()) / np.sqrt((update * update).sum()) * update
    return torch.as_tensor(x)


def lion_by_numpy(theta, steps, lr, betas, weight_decay):
    """Chen et al. 2023, algorithm 2."""
    x, m = theta.numpy().copy(), np.zeros(theta.shape)
    for step in range(steps):
        g = gradient(torch.as_tensor(x), step).numpy()
        update = np.sign(betas[0] * m + (1 - betas[0]) * g)
        x = x - lr * (update + weight_decay * x)
        m = betas[1] * m + (1 - betas[1]) * g
    return torch.as_tensor(x)


LAMB_OPTIONS = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
LION_OPTIONS = {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.1}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lamb_is_algorithm_2_of_the_paper(shape):
    expected = lamb_by_numpy(start(shape), 20, **LAMB_OPTIONS)
    torch.testing.assert_close(run_naive(lamb_naive, shape, **LAMB_OPTIONS), expected, **EXACT)
    torch.testing.assert_close(run_torch(LAMB, shape, **LAMB_OPTIONS), expected, **EXACT)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lion_is_algorithm_2_of_the_paper(shape):
    expected = lion_by_numpy(start(shape), 20, **LION_OPTIONS)
    torch.testing.assert_close(run_naive(lion_naive, shape, **LION_OPTIONS), expected, **EXACT)
    torch.testing.assert_close(run_torch(Lion, shape, **LION_OPTIONS), expected, **EXACT)


def test_control_adamw_is_not_lamb():
    expected = lamb_by_numpy(start((3, 4)), 20, **LAMB_OPTIONS)
    assert not torch.allclose(run_naive(adamw_naive, (3, 4), **LAMB_OPTIONS), expected, rtol=1e-2)


@pytest.mark.parametrize("make", [LAMB, lambda p, **o: NaiveLAMB(p, **o)], ids=["LAMB", "naive"])
def test_a_bias_that_begins_at_zero_leaves_it_under_lamb(make):
    bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    bias.grad = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    make([bias], lr=0.1).step()
    torch.testing.assert_close(bias.detach().sign(), -bias.grad.sign())


class NaiveLAMB:
    def __init__(self, parameters, **options):
        self.parameters, self.options, self.state = parameters, options, {}

    def step(self):
        for parameter in self.parameters:
            parameter.data = lamb_naive(parameter.data, parameter.grad, state=self.state, **self.options)


@pytest.mark.parametrize("make", [LAMB, Lion])
def test_own_optimizers_resume_from_their_state_exactly(make):
    theta = nn.Parameter(start((3, 4)))
    optimizer = make([theta], lr=0.05, weight_decay=0.1)
    for step in range(5):
        theta.grad = gradient(theta.detach(), step)
        optimizer.step()
    resumed = nn.Parameter(theta.detach().clone())
    second = make([resumed], lr=0.9)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(5, 10):
        for parameter, stepped in [(theta, optimizer), (resumed, second)]:
            parameter.grad = gradient(parameter.detach(), step)
            stepped.step()
    assert torch.equal(theta, resumed)


@pytest.mark.parametrize("make", [LAMB, Lion])
def test_own_optimizers_run_a_closure_and_skip_what_has_no_gradient(make):
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = make([used, unused], lr=0.1)

    def closure():
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert not torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))
    assert unused not in optimizer.state


def muon_by_numpy(theta, steps, lr, momentum, weight_decay):
    """Jordan's post: momentum, five Newton-Schulz steps, scaled by √max(1, rows / columns)."""
    x, b = theta.numpy().copy(), np.zeros(theta.shape)
    for step in range(steps):
        g = gradient(torch.as_tensor(x), step).numpy()
        b = momentum * b + (1 - momentum) * g
        u, s, vt = np.linalg.svd((1 - momentum) * g + momentum * b, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        x = x * (1 - lr * weight_decay) - lr * math.sqrt(max(1, x.shape[0] / x.shape[1])) * (u * s) @ vt
    return torch.as_tensor(x)


MUON_OPTIONS = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (8, 2), (5, 5)], ids=str)
def test_muon_is_the_polynomial_on_the_singular_values(shape):
    expected = muon_by_numpy(start(shape), 20, **MUON_OPTIONS)
    actual = run_naive(muon_naive, shape, compute_dtype=torch.float64, **MUON_OPTIONS)
    # 1e-9: the polynomial has slope 3.4 at zero, so five of its steps magnify the SVD's error by hundreds.
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (8, 2)], ids=str)
def test_muon_to_read_is_torchs_within_bfloat16(shape):
    expected = run_torch(torch.optim.Muon, shape, steps=3, **MUON_OPTIONS)
    actual = run_naive(muon_naive, shape, steps=3, **MUON_OPTIONS)
    # bfloat16 keeps 8 bits, torch joins product and sum into one rounding: the updates agree to some percent.
    assert (actual - expected).norm() < 0.05 * (expected - start(shape)).norm()


@pytest.mark.parametrize(
    "rule",
    [
        *(sgd_naive, adagrad_naive, adadelta_naive, rmsprop_naive, adam_naive, adamw_naive),
        *(lamb_naive, lion_naive, muon_naive),
    ],
)
@pytest.mark.parametrize("shape", [(3, 1), (1,), (1, 3, 3), (3,)], ids=str)
def test_a_gradient_that_would_be_stretched_to_fit_is_an_error(rule, shape):
    state = {}
    with pytest.raises(InputError, match=r"another shape: expected shape \(3, 3\), the parameter's, got"):
        rule(torch.ones(3, 3), torch.ones(shape), state=state, lr=0.1)
    assert not state, "nothing is kept of it"
