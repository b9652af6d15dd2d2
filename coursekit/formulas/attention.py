"""How wide attention is: of heads that are d / h wide, and of latent attention."""

from __future__ import annotations


def attention_widths(
    d_model: int, n_heads: int, n_kv_heads: int, kv_rank: int, nope_dim: int, rope_dim: int, v_dim: int
) -> dict[str, int]:
    """Return how many numbers a token has of each kind in one attention layer, all heads together.

        queries   h k; latent: h (nope_dim + rope_dim)
        keys      n_kv_heads k; latent: as many as queries
        values    n_kv_heads k; latent: h v_dim
        outputs   h k; latent: h v_dim
        cached    keys and values; latent: kv_rank + rope_dim, of which both can be made again
        rotary    k; latent: rope_dim, what is turned of a head

    Where:
        n_heads: h; k = d / h.
        kv_rank: numbers of the latent out of which keys and values are made; 0 is attention without one.
        nope_dim: of a head's query and key, those that no position turns.
        rope_dim: those that are turned; of the key they are the same for all heads.
        v_dim: of a head's value.
    Source: DeepSeek-AI 2024, DeepSeek-V2, section 2.1 (https://arxiv.org/abs/2405.04434).
    """
    if kv_rank > 0:
        return {
            "queries": n_heads * (nope_dim + rope_dim),
            "keys": n_heads * (nope_dim + rope_dim),
            "values": n_heads * v_dim,
            "outputs": n_heads * v_dim,
            "cached": kv_rank + rope_dim,
            "rotary": rope_dim,
        }
    head_dim = d_model // n_heads
    return {
        "queries": d_model,
        "keys": n_kv_heads * head_dim,
        "values": n_kv_heads * head_dim,
        "outputs": d_model,
        "cached": 2 * n_kv_heads * head_dim,
        "rotary": head_dim,
    }


def cache_bytes_per_token(
    n_layers: int,
    d_model: int,
    n_heads: int,
    n_kv_heads: int,
    kv_rank: int,
    nope_dim: int,
    rope_dim: int,
    v_dim: int,
    cached_bytes: float,
) -> float:
    """Return the bytes that the key-value cache holds of a token while a model generates.

    Where:
        cached_bytes: of a number.
    Source: DeepSeek-AI 2024, DeepSeek-V2, table 1 (https://arxiv.org/abs/2405.04434).
    """
    widths = attention_widths(d_model, n_heads, n_kv_heads, kv_rank, nope_dim, rope_dim, v_dim)
    return n_layers * widths["cached"] * cached_bytes
