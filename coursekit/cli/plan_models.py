"""Models that `coursekit plan` knows: shapes of `coursekit.models`, and published mixtures of experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coursekit.errors import InputError

# Jiang et al. 2024 (https://arxiv.org/abs/2401.04088), table 1, for Mixtral 8x7B; the other's config.json.
# DeepSeek-AI 2024 (https://arxiv.org/abs/2412.19437), section 4.2, and its config.json.
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
        | {"d_ff": 18_432, "q_rank": 1536, "kv_rank": 512, "nope_dim": 128, "rope_dim": 64, "v_dim": 128},
        {"n_experts": 256, "top_k": 8, "d_ff": 2048, "n_shared": 1, "first_dense": 3},
    ),
}
_DEEPSEEK = {
    "n_experts": "n_routed_experts",
    "top_k": "num_experts_per_tok",
    "d_ff": "moe_intermediate_size",
    "n_shared": "n_shared_experts",
    "first_dense": "first_k_dense_replace",
    "every": "moe_layer_freq",
}
# Where a field of `ExpertLayers` stands in a Hugging Face config.json with experts.
_EXPERT_NAMES = {
    "mixtral": {"n_experts": "num_local_experts", "top_k": "num_experts_per_tok"},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
}
# Where a field of `LatentConfig` stands there.
_LATENT_NAMES = {
    "q_rank": "q_lora_rank",
    "kv_rank": "kv_lora_rank",
    "nope_dim": "qk_nope_head_dim",
    "rope_dim": "qk_rope_head_dim",
    "v_dim": "v_head_dim",
}
_NOT_NEEDED = {"every", "q_rank"}


def planned_models() -> dict[str, tuple[Any, Any]]:
    """Return the shape and the experts (None for a dense model) of every published model, by its name."""
    from coursekit.models import PRESETS, GPTConfig, LatentConfig
    from coursekit.models.config_file import LLAMA
    from coursekit.plan import ExpertLayers

    models: dict[str, tuple[Any, Any]] = {name: (shape, None) for name, shape in PRESETS.items()}
    for name, (numbers, experts) in _MIXTURES.items():
        kind = LatentConfig if "kv_rank" in numbers else GPTConfig
        models[name] = kind(**numbers, **LLAMA), ExpertLayers(**experts)
    return models


def model_by_name(name: str) -> tuple[Any, Any]:
    """Return the shape and the experts (None for a dense model) of a published model.

    Args:
        name: as `gpt3-175b`; case and signs between do not matter, and a beginning that only one has does.
    Raises: InputError with the names that are meant, or all.
    """
    models = planned_models()
    names = list(models)
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
    return models[found[0]]


def model_by_file(path: Path) -> tuple[Any, Any]:
    """Return the shape and the experts (None for a dense model) that a JSON file describes.

    Args:
        path: fields of `GPTConfig`, or a Hugging Face `config.json` of model type gpt2, llama, mistral,
            mixtral, deepseek_v2 or deepseek_v3.
    Raises: InputError as `coursekit.models.config_file.read_config`, and for missing fields of experts.
    """
    from coursekit.models import LatentConfig
    from coursekit.models.config_file import read_fields, shape_of
    from coursekit.plan import ExpertLayers

    values = read_fields(path)
    names = _EXPERT_NAMES.get(str(values.get("model_type")))
    if names is None:
        return shape_of(values, path.name), None
    experts = ExpertLayers(**_counts(values, names, path.name))
    # But for its experts, and for DeepSeek's attention, it is a Llama.
    shape = shape_of({**values, "model_type": "llama", "head_dim": None}, path.name)
    if names is _DEEPSEEK:
        latent = _counts(values, _LATENT_NAMES, path.name)
        shape = LatentConfig(**dataclasses.asdict(shape), **latent)
    return shape, experts


def _counts(values: Mapping[str, Any], names: Mapping[str, str], file: str) -> dict[str, int]:
    """Return fields of ours out of a file's, all that are needed and no negative or broken number."""
    given = {ours: values[theirs] for ours, theirs in names.items() if values.get(theirs) is not None}
    if missing := [theirs for ours, theirs in names.items() if ours not in given.keys() | _NOT_NEEDED]:
        raise InputError(f"{file} is not a whole shape", expected=", ".join(missing), got="none of them")
    for ours, value in given.items():
        if type(value) is not int or value < 0:
            wrong = f"{file}: wrong {names[ours]}"
            raise InputError(wrong, expected="a whole number, 0 or more", got=repr(value))
    return given


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _closest(asked: str, names: list[str]) -> str:
    import difflib

    by_letters = {_letters(name): name for name in names}
    close = difflib.get_close_matches(asked, by_letters, n=1, cutoff=0.8)
    return f"did you mean {by_letters[close[0]]}? " if close else ""
