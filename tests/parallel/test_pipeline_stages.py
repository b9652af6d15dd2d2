"""Stages applied in turn are the model; balanced cuts are held against all cuts."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig
from coursekit.parallel import balance_stages, split_into_stages


def tiny_gpt(n_layers=6, **options):
    sizes = {"vocab_size": 13, "max_seq_len": 5, "d_model": 8, "n_heads": 2, "tie_embeddings": False}
    return GPT(GPTConfig(n_layers=n_layers, **{**sizes, **options})).double()


def in_turn(stages, x):
    for stage in stages:
        x = stage(x)
    return x


def all_cuts(num_layers, num_stages):
    for cut in itertools.combinations(range(1, num_layers), num_stages - 1):
        yield [range(a, b) for a, b in itertools.pairwise([0, *cut, num_layers])]


def slowest(costs, parts):
    return max(sum(costs[i] for i in part) for part in parts)


@settings(deadline=None)  # a busy machine is slow, not wrong
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.data())
def test_no_cut_has_a_cheaper_slowest_stage(costs, data):
    num_stages = data.draw(st.integers(1, len(costs)))
    parts = balance_stages(costs, num_stages)
    assert parts in list(all_cuts(len(costs), num_stages))
    assert slowest(costs, parts) == min(slowest(costs, p) for p in all_cuts(len(costs), num_stages))


def test_equal_counts_are_not_always_balanced():
    costs = [1, 1, 1, 1, 1, 9]  # the control: what cutting by number would cost
    assert slowest(costs, balance_stages(costs, 2)) == 9 < slowest(costs, [range(3), range(3, 6)])


@pytest.mark.parametrize("num_stages", [1, 2, 3, 6])
@pytest.mark.parametrize("options", [{}, {"position": "rope", "norm": "rmsnorm", "activation": "swiglu"}])
def test_stages_of_a_gpt_in_turn_are_the_gpt(num_stages, options):
    model, input_ids = tiny_gpt(**options), torch.randint(13, (2, 5))
    stages = split_into_stages(model, num_stages)
    assert torch.equal(in_turn(stages, input_ids), model(input_ids))
    assert [sum(block is not None for block in stage.blocks) for stage in stages] == [
        6 // num_stages
    ] * num_stages


def test_stages_keep_names_and_share_parameters_with_the_model():
    model = tiny_gpt()
    whole = dict(model.named_parameters())
    parts = [dict(stage.named_parameters()) for stage in split_into_stages(model, 3)]
    assert sum(map(len, parts)) == len(whole)
    for part in parts:
        assert all(whole[name] is parameter for name, parameter in part.items())
    assert None not in model.blocks  # the model itself is left whole
    assert None not in (model.token_embedding, model.lm_head)


def test_costs_place_layers_unevenly():
    costs = [0, 1, 1, 1, 1, 1, 1, 3]  # a head as dear as three blocks
    model, input_ids = tiny_gpt(), torch.randint(13, (2, 5))
    stages = split_into_stages(model, 3, costs=costs)
    assert [sum(block is not None for block in stage.blocks) for stage in stages] == [3, 3, 0]
    assert torch.equal(in_turn(stages, input_ids), model(input_ids))


def test_a_sequential_is_cut_under_its_own_names():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(6)))
    first, second = split_into_stages(model, 2)
    assert [*first.state_dict(), *second.state_dict()] == list(model.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(second(first(x)), model(x))
    assert [len(stage) for stage in split_into_stages(model, 2, costs=[5, 1, 1, 1, 1, 1])] == [1, 5]


def test_a_stage_of_a_meta_model_gets_memory_alone():
    with torch.device("meta"):
        model = tiny_gpt()
    stage = split_into_stages(model, 3)[2].to_empty(device="cpu")
    stage.init_weights()
    assert stage(torch.randn(1, 5, 8, dtype=torch.float64)).shape == (1, 5, 13)
    assert model.token_embedding.weight.is_meta


@pytest.mark.parametrize(
    ("model", "num_stages", "costs", "message"),
    [
        (
            nn.Sequential(*(nn.Linear(1, 1) for _ in range(6))),
            4,
            None,
            "num_stages of 1, 2, 3, 6 for 6 layers",
        ),
        (tiny_gpt(), 4, None, "num_stages of 1, 2, 3, 6 for 6 layers, got 4; or pass costs"),
        (tiny_gpt(), 0, None, "got 0"),
        (tiny_gpt(), 2, [1] * 6, "expected 8 costs, got 6"),
        (tiny_gpt(), 9, [1] * 8, "expected 1 to 8, got 9"),
        (tiny_gpt(), 2, [-1] + [1] * 7, "finite costs, 0 or more, got -1"),
        (nn.Linear(1, 1), 1, None, "expected GPT or nn.Sequential, got Linear"),
        (
            tiny_gpt(tie_embeddings=True),
            2,
            None,
            "share a parameter, token_embedding.weight and lm_head.weight; .* tie_embeddings=False",
        ),
    ],
)
def test_models_that_cannot_be_cut_so_are_told_what_would(model, num_stages, costs, message):
    with pytest.raises(InputError, match=message):
        split_into_stages(model, num_stages, costs=costs)
