"""Generation with and without cache, in float64: same logits at every step, same tokens."""

import dataclasses

import pytest
import torch

from coursekit.errors import InputError
from coursekit.models import GPT, GPTConfig, KVCache, LayerCache, generate, sample_token

GPT2 = GPTConfig(vocab_size=13, max_seq_len=16, d_model=16, n_layers=2, n_heads=4)
LLAMA = dataclasses.replace(
    GPT2, norm="rmsnorm", activation="swiglu", position="rope", n_kv_heads=2, bias=False, tie_embeddings=False
)
both = pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])


def model_of(config):
    torch.manual_seed(0)
    model = GPT(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def prompt(seq_len=5, batch_size=2):
    return torch.randint(13, (batch_size, seq_len), generator=torch.Generator().manual_seed(1))


@both
@pytest.mark.parametrize("chunks", [[1] * 12, [12], [5, 1, 1, 5], [4, 8], [11, 1]], ids=str)
@torch.no_grad()
def test_cached_logits_equal_uncached_ones_at_every_step(config, chunks):
    model, input_ids, cache = model_of(config), prompt(12), KVCache(2, 16)
    seen = 0
    for part in input_ids.split(chunks, dim=1):
        logits = model(part, cache=cache)
        seen += part.shape[1]
        assert cache.length == seen
        expected = model(input_ids[:, :seen])[:, -part.shape[1] :]
        torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-13)


@both
@torch.no_grad()
def test_control_positions_that_start_anew_give_other_logits(config):
    model, input_ids, cache = model_of(config), prompt(12), KVCache(2, 16)
    model(input_ids[:, :8], cache=cache)
    wrong = model(input_ids[:, 8:], cache=cache, positions=torch.arange(4))
    assert not torch.allclose(wrong, model(input_ids)[:, 8:], rtol=1e-3, atol=1e-3)


@both
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"temperature": 0.7, "top_k": 4}], ids=str)
def test_tokens_are_the_same_with_and_without_cache(config, options):
    model, results = model_of(config), []
    for use_cache in (True, False):
        generator = torch.Generator().manual_seed(2)
        results.append(generate(model, prompt(), 11, use_cache=use_cache, generator=generator, **options))
    assert torch.equal(*results)
    assert results[0].shape == (2, 16)
    assert torch.equal(results[0][:, :5], prompt())


def test_greedy_tokens_are_the_argmax_of_the_logits_before_them():
    model = model_of(LLAMA)
    tokens = generate(model, prompt(), 6, temperature=0.0)
    predicted = model(tokens).argmax(-1)
    assert torch.equal(predicted[:, 4:-1], tokens[:, 5:])


def test_the_cache_has_the_size_of_the_formula():
    cache = KVCache(LLAMA.n_layers, 16)
    assert cache.num_bytes == 0
    with torch.no_grad():
        model_of(LLAMA)(prompt(), cache=cache)
    # keys and values, layers, batch, kv heads, positions, head_dim, bytes of a float64
    assert cache.num_bytes == 2 * 2 * 2 * 2 * 16 * 4 * 8


def test_samples_follow_the_probabilities_of_the_k_likeliest():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(40_000, 4)
    generator = torch.Generator().manual_seed(0)
    counts = (
        sample_token(logits, top_k=2, temperature=0.5, generator=generator).flatten().bincount(minlength=4)
    )
    shares = torch.tensor([0.0, 0.0, 0.09 / 0.25, 0.16 / 0.25])  # squared, since 1 / temperature is 2
    torch.testing.assert_close(counts / 40_000, shares, rtol=0, atol=0.01)  # four standard deviations


def test_of_equal_logits_no_more_than_k_are_drawn():
    drawn = sample_token(torch.zeros(1000, 5), top_k=2, generator=torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == 2


def test_dropout_is_off_and_modes_are_as_they_were():
    model = model_of(dataclasses.replace(GPT2, dropout=0.5))
    model.blocks[0].eval()
    tokens = generate(model, prompt(), 5, temperature=0.0)
    assert torch.equal(tokens, generate(model, prompt(), 5, temperature=0.0))
    assert model.training
    assert model.blocks[1].attention.dropout.training
    assert not model.blocks[0].attention.dropout.training


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((prompt(), 12), {}, r"up to max_seq_len=16 tokens together, got 5 \+ 12"),
        ((prompt(0), 1), {}, "an empty prompt"),
        ((prompt(), 1), {"temperature": -1.0}, "temperature: expected a finite number, 0 or more, got -1.0"),
        ((prompt(), 1), {"top_k": 0}, "a whole top_k >= 1, got 0"),
    ],
)
def test_wrong_arguments_are_errors(arguments, options, message):
    with pytest.raises(InputError, match=message):
        generate(model_of(GPT2), *arguments, **options)


def test_a_full_cache_is_an_error():
    cache = LayerCache(3)
    cache.append(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))
    with pytest.raises(InputError, match="up to 3 positions, got 4"):
        cache.append(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))
