"""Published models have the published number of parameters."""

import dataclasses

import pytest
import torch

from coursekit.errors import InputError
from coursekit.models import GPT, PRESETS, num_params, preset

# Llama: the sum over tensors that the Hugging Face hub gives for the released weights (`safetensors.total`).
# GPT-2: the released weights as Keras Hub's catalogue counts them. GPT-3's weights are not public: its paper,
# Brown et al. 2020, has 174,600 million (table D.1).
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name):
    assert num_params(preset(name)) == PUBLISHED[name]


def test_gpt3_has_the_published_parameters_to_the_published_digits():
    assert round(num_params(preset("gpt3-175b")) / 1e8) == 1746


@pytest.mark.parametrize("name", PRESETS)
def test_built_without_memory_it_has_as_many(name):
    with torch.device("meta"):
        model = GPT(preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == num_params(preset(name))


def test_control_untied_embeddings_are_not_the_published_gpt2():
    untied = dataclasses.replace(preset("gpt2"), tie_embeddings=False)
    assert num_params(untied) - PUBLISHED["gpt2"] == 50257 * 768


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"expected gpt2, .*llama3-405b, got 'gpt5'"):
        preset("gpt5")
