"""Models that `coursekit plan` knows: shapes of `coursekit.models`, and published mixtures of experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coursekit.errors import InputError

_LLAMA = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "position": "rope",
    "bias": False,
    "tie_embeddings": False,
}
# Jiang et al. 2024 (https://arxiv.org/abs/2401.04088), table 1, for Mixtral 8x7B; the other's config.json.
# DeepSeek-AI 2024 (https://arxiv.org/abs/2412.19437), section 4.2. Its latent attention is planned as 128
# heads of d / h = 56: a billion parameters of 671 too many, fewer activations and scores than it has.
_MIXTURES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "mixtral-8x7b": (
        {"vocab_size": 32_000, "max_seq_len": 4096, "d_model": 4096, "n_layers": 32, "n_heads": 32}
        | {"n_kv_heads": 8, "d_ff": 14_336},
        {"n_experts": 8, "top_k": 2},
    ),
    "mixtral-8x22b": (
        {"vocab_size": 32_768, "max_seq_len": 4096, "d_model": 6144, "n_layers": 56, "n_heads": 48}
        | {"n_kv_heads": 8, "d_ff": 16_384},
        {"n_experts": 8, "top_k": 2},
    ),
    "deepseek-v3": (
        {"vocab_size": 129_280, "max_seq_len": 4096, "d_model": 7168, "n_layers": 61, "n_heads": 128}
        | {"d_ff": 18_432},
        {"n_experts": 256, "top_k": 8, "d_ff": 2048, "n_shared": 1, "first_dense": 3},
    ),
}
# Where a field of `ExpertLayers` stands in a Hugging Face config.json with experts.
_EXPERT_NAMES = {
    "mixtral": {"n_experts": "num_local_experts", "top_k": "num_experts_per_tok"},
    "deepseek_v3": {
        "n_experts": "n_routed_experts",
        "top_k": "num_experts_per_tok",
        "d_ff": "moe_intermediate_size",
        "n_shared": "n_shared_experts",
        "first_dense": "first_k_dense_replace",
        "every": "moe_layer_freq",
    },
}
_SHAPE_NAMES = {
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "d_ff": "intermediate_size",
}
_GPT2_COUNTS = ("n_positions", "n_embd", "n_layer", "n_head", "n_inner")


def model_by_name(name: str) -> tuple[Any, Any]:
    """Return the shape and the experts (None for a dense model) of a published model.

    Args:
        name: as `gpt3-175b`; case and signs between do not matter, and a beginning that only one has does.
    Raises: InputError with the names that are meant, or all.
    """
    from coursekit.models import PRESETS, GPTConfig
    from coursekit.plan import ExpertLayers

    names = [*PRESETS, *_MIXTURES]
    asked = _letters(name.rpartition("/")[2])
    found = [known for known in names if _letters(known) == asked]
    found = found or [known for known in names if asked and _letters(known).startswith(asked)]
    if len(found) != 1:
        raise InputError(
            "more than one such model" if found else "unknown model",
            expected=" or ".join(found) if found else ", ".join(names),
            got=repr(name),
            fix="" if found else _closest(asked, names) + "or --config FILE, or numbers (--layers, ...)",
        )
    if found[0] in PRESETS:
        return PRESETS[found[0]], None
    shape, experts = _MIXTURES[found[0]]
    return GPTConfig(**shape, **_LLAMA), ExpertLayers(**experts)


def model_by_file(path: Path) -> tuple[Any, Any]:
    """Return the shape and the experts (None for a dense model) that a JSON file describes.

    Args:
        path: fields of `GPTConfig`, or a Hugging Face `config.json` of model type gpt2, llama, mistral,
            mixtral or deepseek_v3.
    Raises: InputError as `coursekit.models.config_file.read_config`, and for fields that are missing.
    """
    from coursekit.models import GPTConfig
    from coursekit.models.config_file import read_config
    from coursekit.plan import ExpertLayers

    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        values = None  # `read_config` says what is wrong
    if not isinstance(values, dict):
        return read_config(path), None
    _check_counts(values, path.name)
    kind = values.get("model_type")
    if kind not in _EXPERT_NAMES:
        return read_config(path), None
    experts = _EXPERT_NAMES[kind]
    needed = [*_SHAPE_NAMES.values(), *(name for ours, name in experts.items() if ours != "every")]
    if missing := [name for name in needed if values.get(name) is None]:
        raise InputError(f"{path.name} is not a whole shape", expected=", ".join(missing), got="none of them")
    shape = {ours: values[theirs] for ours, theirs in _SHAPE_NAMES.items()}
    given = {ours: values[theirs] for ours, theirs in experts.items() if values.get(theirs) is not None}
    tied = {"tie_embeddings": bool(values.get("tie_word_embeddings"))}
    return GPTConfig(**{**_LLAMA, **tied, **shape}), ExpertLayers(**given)


def _check_counts(values: dict[str, Any], name: str) -> None:
    """Raise an InputError for a field that counts something and is no whole number above 0."""
    counts = {*_SHAPE_NAMES, *_SHAPE_NAMES.values(), *_GPT2_COUNTS}
    for field in sorted(counts & values.keys()):
        value = values[field]
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(f"{name}: wrong {field}", expected="a whole number above 0", got=repr(value))


def llama_like() -> dict[str, Any]:
    """Return the fields of a shape of Llama's kind."""
    return dict(_LLAMA)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _closest(asked: str, names: list[str]) -> str:
    import difflib

    by_letters = {_letters(name): name for name in names}
    close = difflib.get_close_matches(asked, by_letters, n=1, cutoff=0.8)
    return f"did you mean {by_letters[close[0]]}? " if close else ""
