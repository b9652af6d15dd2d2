"""Seeding repeats every generator; preserving leaves none moved."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from coursekit.errors import InputError
from coursekit.train import derive_seed, get_rng_state, preserve_rng, seed_everything, set_rng_state


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(())), float(torch.randn(()))


@pytest.fixture(autouse=True)
def _leave_global_randomness_alone():
    state, deterministic = get_rng_state(), torch.are_deterministic_algorithms_enabled()
    yield
    set_rng_state(state)
    torch.use_deterministic_algorithms(deterministic)


def test_the_same_seed_repeats_python_numpy_and_torch():
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_the_returned_generator_is_independent_of_the_global_one():
    generator = seed_everything(7)
    torch.rand(5)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.rand(3, generator=generator), expected)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_refuses_is_refused_for_all(seed):
    with pytest.raises(InputError, match="seed is out of range"):
        seed_everything(seed)


def test_deterministic_makes_torch_refuse():
    seed_everything(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()


def test_derived_seeds_differ_by_label_and_fit_numpy():
    seeds = {derive_seed(0, name, rank) for name in ("data", "dropout") for rank in range(500)}
    assert len(seeds) == 1000
    assert derive_seed(0, 1, 23) != derive_seed(0, 12, 3)
    assert derive_seed(0, 1) != derive_seed(0, "1")
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_derived_seed_is_the_same_in_another_process():
    code = "from coursekit.train import derive_seed; print(derive_seed(3, 'dropout', 1))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == derive_seed(3, "dropout", 1)


def test_preserving_leaves_every_generator_as_it_was():
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    with preserve_rng():
        draw()
    assert draw() == expected


def test_preserving_holds_when_the_block_raises():
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    with pytest.raises(KeyError), preserve_rng(5):
        raise KeyError(draw())
    assert draw() == expected


def test_a_seed_inside_the_block_repeats_the_block():
    with preserve_rng(5):
        first = draw()
    with preserve_rng(5):
        assert draw() == first


def test_a_saved_state_repeats_a_step_with_dropout():
    dropout, x = torch.nn.Dropout(0.5), torch.ones(50)
    state = get_rng_state()
    first = dropout(x)
    assert not torch.equal(dropout(x), first)
    set_rng_state(state)
    assert torch.equal(dropout(x), first)
