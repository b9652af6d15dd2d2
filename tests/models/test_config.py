"""Numbers of parameters: the formula, the built model, and wrong shapes."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, num_params

SMALL = {"vocab_size": 11, "max_seq_len": 5, "d_model": 12, "n_layers": 1, "n_heads": 4}


@st.composite
def configs(draw):
    n_kv_heads = draw(st.integers(1, 3))
    n_heads = n_kv_heads * draw(st.integers(1, 3))
    return GPTConfig(
        vocab_size=draw(st.integers(1, 40)),
        max_seq_len=draw(st.integers(1, 9)),
        d_model=n_heads * 2 * draw(st.integers(1, 4)),
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=draw(st.none() | st.integers(1, 30)),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        activation=draw(st.sampled_from(["gelu", "swiglu"])),
        position=draw(st.sampled_from(["learned", "rope"])),
        bias=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=30)
@given(configs())
def test_the_formula_counts_the_built_model(config):
    with torch.device("meta"):
        model = GPT(config)
    assert num_params(config) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("d_model", "activation", "d_ff"), [(768, "gelu", 3072), (4096, "swiglu", 11008), (768, "swiglu", 2048)]
)
def test_the_default_width_is_the_published_one(d_model, activation, d_ff):
    config = GPTConfig(**SMALL | {"d_model": d_model, "activation": activation})
    assert config.d_ff == d_ff


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 5}, r"n_heads that divides d_model=12, got 5; use n_heads=(4|6)"),
        ({"n_kv_heads": 3}, r"n_kv_heads that divides n_heads=4, got 3; use n_kv_heads=(2|4)"),
        ({"n_kv_heads": 8}, r"n_kv_heads that divides n_heads=4, got 8; use n_kv_heads=4"),
        ({"position": "rope"}, r"even d_model / n_heads, got 3"),
        ({"vocab_size": 0}, r"wrong vocab_size: expected a whole vocab_size >= 1, got 0"),
        ({"d_ff": 0}, r"wrong d_ff: expected a whole d_ff >= 1, got 0"),
        ({"n_heads": 0}, r"wrong n_heads: expected a whole n_heads >= 1, got 0"),
        ({"dropout": 1.0}, r"from 0 to below 1, got 1.0"),
        ({"norm": "batchnorm"}, r"unknown norm: expected 'layernorm' or 'rmsnorm', got 'batchnorm'"),
        ({"activation": "relu"}, r"unknown activation"),
        ({"position": "alibi"}, r"unknown position"),
    ],
)
def test_a_shape_that_cannot_be_is_an_error_that_says_what_could(change, message):
    with pytest.raises(InputError, match=message):
        GPTConfig(**SMALL | change)


def test_a_config_is_not_changed_but_replaced():
    config = GPTConfig(**SMALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layers = 2
    assert dataclasses.replace(config, n_layers=2).n_layers == 2
    assert hash(config) == hash(GPTConfig(**SMALL))
