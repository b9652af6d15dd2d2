"""Optimizers by name, on whole and on sharded parameters, and parameters in the right groups."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.fsdp import fully_shard

from coursekit.errors import InputError
from coursekit.parallel import launch
from coursekit.train import make_optimizer, parameter_groups

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # atol: elements that pass through zero


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
    with pytest.raises(InputError, match=r"got Linear; give model\.parameters\(\), or parameter_groups"):
        make_optimizer("adamw", nn.Linear(2, 2), lr=0.1)


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


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_sharded_parameters_take_the_steps_of_whole_ones(world_size):
    names = ["sgd", "adamw", "lamb", "lion"]  # on four ranks one has no row of some of them
    for results in launch(trained_sharded, world_size, names, timeout_seconds=120):
        for name, sharded in zip([name for name in names for _ in range(2)], results, strict=True):
            torch.testing.assert_close(sharded, trained(small_model(), name), **EXACT)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lion"])
def test_on_cuda_the_steps_are_the_cpus(name):
    models = [small_model(), small_model().cuda()]
    optimizers = [
        make_optimizer(name, parameter_groups(model, weight_decay=0.1), lr=0.05) for model in models
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradients = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in models[0].parameters()]
        for model, optimizer in zip(models, optimizers, strict=True):
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient.to(parameter.device, copy=True)
            optimizer.step()
    for on_cpu, on_cuda in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(on_cuda.detach().cpu(), on_cpu.detach(), rtol=1e-10, atol=1e-12)
