"""Update rules against torch.optim or a NumPy transcription of the paper; parameters in the right groups."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.fsdp import fully_shard

from coursekit.errors import InputError
from coursekit.parallel import launch
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
    parameter_groups,
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


class Scaled(nn.Module):
    """A layer of a user's own, whose vector and scalar have names and a class that say nothing."""

    def __init__(self):
        super().__init__()
        self.gain, self.temperature = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))
        self.matrix = nn.Parameter(torch.ones(3, 3))


MAKERS = {
    "linear": lambda: nn.Linear(2, 3),
    "no_bias": lambda: nn.Linear(2, 3, bias=False),
    "layer_norm": lambda: nn.LayerNorm(3),
    "matrix_norm": lambda: nn.LayerNorm((2, 3)),
    "batch_norm": lambda: nn.BatchNorm1d(3),
    "embedding": lambda: nn.Embedding(4, 2),
    "own": lambda: Scaled(),
    "attention": lambda: nn.MultiheadAttention(2, 1, add_bias_kv=True),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=6), st.data())
def test_every_trained_parameter_is_in_exactly_one_group(kinds, data):
    model = nn.ModuleList([MAKERS[kind]() for kind in kinds])
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(data.draw(st.booleans()))
    model.append(tied := nn.Linear(2, 2, bias=False))
    model.append(other := nn.Linear(2, 2, bias=False))
    other.weight = tied.weight
    groups = parameter_groups(model, weight_decay=0.1)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def decays(model, **options):
    """Return the names of the parameters that are decayed."""
    groups = parameter_groups(model, weight_decay=0.1, **options)
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in decayed}


@pytest.mark.parametrize(
    ("kind", "decayed"),
    [
        ("linear", {"weight"}),
        ("no_bias", {"weight"}),
        ("layer_norm", set()),
        ("matrix_norm", set()),  # two dims, and yet a gain
        ("batch_norm", set()),
        ("embedding", {"weight"}),
        ("own", {"matrix"}),
        ("attention", {"in_proj_weight", "out_proj.weight", "bias_k", "bias_v"}),
    ],
)
def test_matrices_are_decayed_and_norms_and_biases_are_not(kind, decayed):
    assert decays(MAKERS[kind]()) == decayed


def test_embeddings_may_be_spared_and_so_is_a_head_tied_to_one():
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    assert decays(model, decay_embeddings=False) == {"head.weight"}
    model["head"].weight = model["embedding"].weight
    assert decays(model) == {"embedding.weight"}
    assert decays(model, decay_embeddings=False) == set()


def test_groups_do_to_the_parameters_what_they_say():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).double()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer("adamw", parameter_groups(model, weight_decay=0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = list(model.parameters())
    torch.testing.assert_close(after[0].detach(), before[0] * 0.95, **EXACT)
    assert all(torch.equal(a, b) for a, b in zip(after[1:], before[1:], strict=True))


def weights():
    return [nn.Parameter(torch.zeros(2, 2))]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("adamv", {}, "no optimizer of this name: expected adadelta or .* got 'adamv'"),
        (
            "sgd",
            {"betas": (0.9, 0.99)},
            r"no such option: expected any of momentum, .* got \['betas'\]",
        ),
        ("lamb", {"momentum": 0.9}, "lamb has no such option: expected any of betas, eps, weight_decay, got"),
        ("adam", {"eps": -1.0}, "adam refuses its arguments: Invalid epsilon value"),
        ("lamb", {"betas": (0.9, 1.0)}, "two betas"),
        ("lion", {"weight_decay": -0.1}, "weight_decay >= 0"),
        ("lion", {"lr": float("nan")}, "lr >= 0"),
    ],
)
def test_what_an_optimizer_does_not_take_is_said(name, options, says):
    with pytest.raises(InputError, match=says):
        make_optimizer(name, weights(), **{"lr": 0.1} | options)


def test_an_optimizer_of_nothing_is_an_error():
    with pytest.raises(InputError, match="empty parameter list"):
        make_optimizer("adamw", [], lr=0.1)
    with pytest.raises(InputError, match="nothing to optimize"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), weight_decay=0.1)
    with pytest.raises(InputError, match="weight_decay >= 0"):
        parameter_groups(nn.Linear(2, 2), weight_decay=-0.1)


def test_muon_refuses_what_is_no_matrix_and_says_what_to_do():
    with pytest.raises(InputError, match=r"two dims, got shapes \[\(3,\)\]; give these"):
        make_optimizer("muon", parameter_groups(nn.Linear(2, 3), weight_decay=0.1), lr=0.1)


@pytest.mark.parametrize("parameters", [weights(), [("weight", *weights())], [{"params": weights()}]])
def test_parameters_come_bare_named_or_in_groups(parameters):
    assert make_optimizer("adamw", parameters, lr=0.1).param_groups[0]["fused"]


def test_kernels_may_be_chosen():
    assert make_optimizer("adamw", weights(), lr=0.1).defaults["fused"]
    assert make_optimizer("adamw", weights(), lr=0.1, foreach=True).defaults["fused"] is None


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def trained(model, name):
    optimizer = make_optimizer(name, parameter_groups(model, weight_decay=0.1), lr=0.05)
    inputs = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    for _ in range(5):
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]


def trained_sharded(names):
    results = []
    for name in names:
        model = small_model()
        fully_shard(model[0])  # model[2] stays whole: all ranks see the same batch, so their gradients agree
        results.append(trained(model, name))
        model = small_model()
        fully_shard(model)
        results.append(trained(model, name))
    return results


def test_sharded_parameters_take_the_steps_of_whole_ones():
    names = ["sgd", "adamw", "lamb", "lion"]
    for results in launch(trained_sharded, 2, names, timeout_seconds=120):
        for name, sharded in zip([name for name in names for _ in range(2)], results, strict=True):
            torch.testing.assert_close(sharded, trained(small_model(), name), **EXACT)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lion"])
def test_on_cuda_the_steps_are_the_cpus(name):
    cuda = small_model().cuda()
    optimizers = []
    models = [small_model(), cuda]
    for model in models:
        optimizers.append(make_optimizer(name, parameter_groups(model, weight_decay=0.1), lr=0.05))
    for step in range(5):
        for model, optimizer in zip(models, optimizers, strict=True):
            for index, parameter in enumerate(model.parameters()):
                parameter.grad = gradient(start(parameter.shape), step + index).to(parameter.device)
            optimizer.step()
    for on_cpu, on_cuda in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(on_cuda.detach().cpu(), on_cpu.detach(), rtol=1e-10, atol=1e-12)
