"""Text from a model, one token after another."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole
from coursekit.models.gpt import GPT
from coursekit.models.kv_cache import KVCache


@torch.no_grad()
def generate(
    model: GPT,
    input_ids: Int[Tensor, "b t"],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b n"]:
    """Return `input_ids` followed by `max_new_tokens` tokens, each drawn from the model's prediction.

    With the cache a token costs a forward pass over one position, without it over all so far; the logits
    are the same. The model is in evaluation mode meanwhile.

    Args:
        model: with all its parts.
        input_ids: the prompts (b, t), all of one length, on the model's device.
        max_new_tokens: tokens to append.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw from so many likeliest tokens only; None from all.
        use_cache: whether keys and values are kept.
        generator: of the model's device; None is torch's own.
    Raises: InputError if the result would be longer than `max_seq_len`, or for a wrong temperature, top_k,
        number of tokens, empty prompt, or a model that is no whole GPT.
    """
    _check(model, input_ids, max_new_tokens)
    _check_choice(temperature, top_k)
    cache = KVCache(len(model.blocks), input_ids.shape[1] + max_new_tokens) if use_cache else None
    fresh = input_ids
    with _evaluation_mode(model):
        for _ in range(max_new_tokens):
            logits = model(input_ids if cache is None else fresh, cache=cache)[:, -1]
            fresh = sample_token(logits, temperature=temperature, top_k=top_k, generator=generator)
            input_ids = torch.cat((input_ids, fresh), dim=1)
    return input_ids


def sample_token(
    logits: Float[Tensor, "b v"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b 1"]:
    """Return a token id a row, drawn with probability softmax(logits / temperature).

    Args:
        logits: of one position (b, v).
        temperature: below 1 prefers the likely tokens more than the model does; 0 takes the likeliest.
        top_k: tokens less likely than the k likeliest are not drawn; None draws from all.
        generator: of the logits' device; None is torch's own.
    Raises: InputError for a wrong temperature or top_k.
    Source: Fan et al. 2018, section 5, for top_k (https://arxiv.org/abs/1805.04833).

    >>> sample_token(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0.0)
    tensor([[1]])
    """
    _check_choice(temperature, top_k)
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    if top_k is not None:
        top, indices = logits.topk(min(top_k, logits.shape[-1]))
        # Scattered, not compared with the k-th: where several are equal to it, that would leave too many.
        logits = torch.full_like(logits, -torch.inf).scatter(-1, indices, top)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)


def _check(model: GPT, input_ids: Tensor, max_new_tokens: int) -> None:
    if not isinstance(model, GPT) or None in (model.token_embedding, model.lm_head):
        got = "a stage of it" if isinstance(model, GPT) else type(model).__name__
        raise InputError("this model has no next token", expected="a whole GPT", got=got)
    check_whole("tokens cannot be taken back", least=0, max_new_tokens=max_new_tokens)
    if not isinstance(input_ids, Tensor) or input_ids.dim() != 2:
        got = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids).__name__
        fix = "one prompt is torch.tensor([ids])"
        raise InputError("no prompts", expected="token ids (b, t)", got=got, fix=fix)
    total, room = input_ids.shape[1] + max_new_tokens, model.config.max_seq_len
    if total > room:
        raise InputError(
            "prompt and new tokens are longer than the model's sequences",
            expected=f"up to max_seq_len={room} tokens together",
            got=f"{input_ids.shape[1]} + {max_new_tokens}",
            fix="cut the prompt's beginning",
        )
    if input_ids.shape[1] == 0:
        raise InputError("an empty prompt", expected="at least one token", got=tuple(input_ids.shape))


def _check_choice(temperature: float, top_k: int | None) -> None:
    if not (isinstance(temperature, (int, float)) and 0 <= temperature < math.inf):
        raise InputError("wrong temperature", expected="a finite number, 0 or more", got=repr(temperature))
    if top_k is not None:
        check_whole("nothing to draw from", top_k=top_k)


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:  # one by one: a frozen part may have been in evaluation mode before
            module.training = True
