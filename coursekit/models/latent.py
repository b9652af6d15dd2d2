"""The shape of a GPT with latent attention, for planning: no such model is built here."""

from __future__ import annotations

import dataclasses

from coursekit.errors import InputError, check_whole
from coursekit.models.config import GPTConfig


@dataclasses.dataclass(frozen=True)
class LatentConfig(GPTConfig):
    """A shape whose keys and values are made out of one narrow vector a token, as DeepSeek-V2's and V3's are.

    `coursekit.plan` counts it and `num_params` does; `GPT` refuses it. `n_kv_heads` has no effect.

    Args:
        kv_rank: numbers of the vector that keys and values are made of.
        nope_dim: of a head's query and key, the numbers that no position turns.
        rope_dim: those that are turned; the key's are the same for all heads.
        v_dim: numbers of a head's value.
        q_rank: numbers of the vector that queries are made of; 0 makes them out of the hidden states.
    Raises: InputError for numbers that cannot be, and as `GPTConfig`.
    Source: DeepSeek-AI 2024, DeepSeek-V2, section 2.1 (https://arxiv.org/abs/2405.04434).

    >>> lite = LatentConfig(100, 64, d_model=32, n_layers=1, n_heads=4, kv_rank=8, nope_dim=8, v_dim=8)
    >>> lite.kv_rank, lite.q_rank
    (8, 0)
    """

    kv_rank: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    v_dim: int = 0
    q_rank: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("kv_rank", 1), ("nope_dim", 1), ("rope_dim", 0), ("v_dim", 1), ("q_rank", 0)):
            check_whole(f"wrong {name}", least=least, **{name: getattr(self, name)})
        if self.rope_dim % 2:
            raise InputError("rotary positions turn pairs", expected="an even rope_dim", got=self.rope_dim)
