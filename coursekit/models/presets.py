"""Shapes of published models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coursekit.errors import InputError
from coursekit.models.config import GPTConfig


def _gpt2(d_model: int, n_layers: int, n_heads: int) -> GPTConfig:
    return GPTConfig(50257, 1024, d_model=d_model, n_layers=n_layers, n_heads=n_heads)


def _llama(vocab_size: int, max_seq_len: int, **shape: int | float) -> GPTConfig:
    return GPTConfig(
        vocab_size,
        max_seq_len,
        norm="rmsnorm",
        activation="swiglu",
        position="rope",
        bias=False,
        tie_embeddings=False,
        **shape,
    )


def _llama3(d_model: int, n_layers: int, n_heads: int, d_ff: int) -> GPTConfig:
    shape = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "d_ff": d_ff}
    return _llama(128_256, 8192, n_kv_heads=8, rope_theta=500_000.0, **shape)


PRESETS: Mapping[str, GPTConfig] = MappingProxyType(
    {
        "gpt2": _gpt2(768, 12, 12),
        "gpt2-medium": _gpt2(1024, 24, 16),
        "gpt2-large": _gpt2(1280, 36, 20),
        "gpt2-xl": _gpt2(1600, 48, 25),
        "gpt3-175b": GPTConfig(50257, 2048, d_model=12288, n_layers=96, n_heads=96),
        "llama2-7b": _llama(32_000, 4096, d_model=4096, n_layers=32, n_heads=32, d_ff=11_008),
        "llama3-8b": _llama3(4096, 32, 32, 14_336),
        "llama3-70b": _llama3(8192, 80, 64, 28_672),
        "llama3-405b": _llama3(16_384, 126, 128, 53_248),
    }
)
"""Shapes by name; `preset` gives one."""


def preset(name: str) -> GPTConfig:
    """Return the shape of a published model, dropout 0.

    The shape alone: nothing here loads weights. GPT-3 alternates dense with locally banded sparse
    attention, which changes no shape; here all layers are dense. Llama 3 has the 8192 positions it was
    first trained with; version 3.1 stretches the rotary frequencies to 131,072, which is not here.

    Args:
        name: one of `PRESETS`.
    Raises: InputError for another name.
    Source: Radford et al. 2019, table 2; Brown et al. 2020, table 2.1 (https://arxiv.org/abs/2005.14165);
        Touvron et al. 2023 (https://arxiv.org/abs/2307.09288); Grattafiori et al. 2024, table 3
        (https://arxiv.org/abs/2407.21783).

    >>> preset("llama3-8b").n_kv_heads
    8
    """
    if name not in PRESETS:
        raise InputError("unknown preset", expected=", ".join(PRESETS), got=repr(name))
    return PRESETS[name]
