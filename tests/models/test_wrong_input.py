"""Mistakes that torch lets pass, or tells of in words about something else: each is an error by name."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.models import (
    GPT,
    GPTConfig,
    KVCache,
    MoE,
    Router,
    causal_attention,
    generate,
    load_balancing_loss,
    naive_attention,
    rotary_angles,
    sample_token,
    use_experts,
)

SHAPE = GPTConfig(vocab_size=11, max_seq_len=8, d_model=8, n_layers=2, n_heads=2)
IDS = torch.tensor([[1, 2, 3]])


def model():
    return GPT(SHAPE).eval()


def stage():
    without_head = model()
    without_head.lm_head = None
    return without_head


def after_a_batch_of_two():
    cache = KVCache(2, 8)
    with torch.no_grad():
        model()(torch.cat((IDS, IDS)), cache=cache)
    return cache


def attend(attention, num_queries, num_keys):
    q, k = torch.randn(1, 2, num_queries, 4), torch.randn(1, 2, num_keys, 4)
    return attention(q, k, k)


def routing():
    return Router(8, 4, top_k=2)(torch.randn(5, 8))


SHAPES = [
    ({"n_layers": 2.5}, "a whole n_layers >= 1, got 2.5"),
    ({"d_model": "8"}, "a whole d_model >= 1, got '8'"),
    ({"d_ff": 16.5}, "a whole d_ff >= 1, got 16.5"),
    ({"n_kv_heads": 2.0}, "a whole n_kv_heads >= 1, got 2.0"),
    ({"vocab_size": True}, "a whole vocab_size >= 1, got True"),
    ({"bias": "no"}, "wrong bias: expected True or False, got 'no'"),
    ({"tie_embeddings": None}, "wrong tie_embeddings"),
    ({"dropout": "0.1"}, "wrong dropout"),
    ({"rope_theta": 0}, "wrong rope_theta: expected a finite number above 0, got 0"),
    ({"rope_theta": math.nan}, "wrong rope_theta"),
    ({"norm_eps": -1.0}, "wrong norm_eps"),
]
CALLS = {
    "a name for a config": (lambda: GPT("gpt2"), r"a GPTConfig, got 'gpt2'; preset\(name\)"),
    "one row": (lambda: model()(IDS[0]), r"token ids \(b, t\), got \(3,\)"),
    "a list": (lambda: model()([[1, 2]]), r"token ids \(b, t\), got list"),
    "an id too large": (lambda: model()(IDS + 10), "ids from 0 to 10, got 11 to 13"),
    "labels for ids": (lambda: model()(IDS - 101), "got -100 to -98; labels have IGNORE_INDEX"),
    "one position": (
        lambda: model()(IDS, positions=torch.tensor([0])),
        r"shape \(3,\), one position a token",
    ),
    "a cache of fewer layers": (lambda: model()(IDS, cache=KVCache(1, 8)), "cache is of another model"),
    "a cache of more rows": (lambda: model()(IDS, cache=after_a_batch_of_two()), "holds another batch"),
    "fewer than no tokens": (lambda: generate(model(), IDS, -1), "a whole max_new_tokens >= 0, got -1"),
    "a stage": (lambda: generate(stage(), IDS, 1), "a whole GPT, got a stage of it"),
    "another model": (lambda: generate(nn.Linear(2, 2), IDS, 1), "a whole GPT, got Linear"),
    "text": (lambda: generate(model(), "hello", 1), r"token ids \(b, t\), got str"),
    "NaN for a temperature": (lambda: generate(model(), IDS, 1, temperature=math.nan), "temperature"),
    "a negative temperature": (lambda: sample_token(torch.zeros(1, 2), temperature=-1.0), "temperature"),
    "no token to draw": (lambda: sample_token(torch.zeros(1, 2), top_k=0), "a whole top_k >= 1"),
    "queries without keys": (lambda: attend(causal_attention, 3, 2), "at least 3 keys, got 2"),
    "queries without keys, by hand": (lambda: attend(naive_attention, 3, 2), "at least 3 keys, got 2"),
    "an odd head": (lambda: rotary_angles(torch.arange(3), 5), "an even head_dim, got 5"),
    "a base of 0": (lambda: rotary_angles(torch.arange(3), 4, theta=0.0), "theta > 0"),
    "whole angles": (lambda: rotary_angles(torch.arange(3), 4, dtype=torch.int64), "got torch.int64"),
    "half a choice": (lambda: MoE(SHAPE, 2, top_k=1.5), "a whole top_k >= 1, got 1.5"),
    "NaN for a capacity": (lambda: MoE(SHAPE, 2, top_k=1, capacity_factor=math.nan), "capacity_factor"),
    "tokens by sequence": (lambda: Router(8, 4, top_k=2)(torch.randn(2, 3, 8)), r"shape \(n, d\)"),
    "one load for all": (lambda: load_balancing_loss(routing(), load=torch.ones(1)), r"shape \(4,\)"),
    "no blocks": (lambda: use_experts(nn.Linear(2, 2), 4), "expected GPT, got Linear"),
    "every half block": (lambda: use_experts(model(), 4, every=1.5), "a whole every >= 1, got 1.5"),
}


@pytest.mark.parametrize(("change", "message"), SHAPES)
def test_a_shape_of_wrong_types_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SHAPE, **change)


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistake_is_an_error_by_name(mistake):
    call, message = CALLS[mistake]
    with pytest.raises(InputError, match=message):
        call()
