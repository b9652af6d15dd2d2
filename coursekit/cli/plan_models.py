"""Models that `coursekit plan` knows: shapes of `coursekit.models`, and published mixtures of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coursekit.errors import InputError

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


def model_by_name(name: str) -> tuple[Any, Any]:
    """Return the shape and the experts (None for a dense model) of a published model.

    Args:
        name: as `gpt3-175b`; case and signs between do not matter, and a beginning that only one has does.
    Raises: InputError with the names that are meant, or all.
    """
    from coursekit.models import PRESETS, GPTConfig
    from coursekit.models.config_file import LLAMA
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
    return GPTConfig(**shape, **LLAMA), ExpertLayers(**experts)


def model_by_file(path: Path) -> tuple[Any, Any]:
    """Return the shape and the experts (None for a dense model) that a JSON file describes.

    Args:
        path: fields of `GPTConfig`, or a Hugging Face `config.json` of model type gpt2, llama, mistral,
            mixtral or deepseek_v3.
    Raises: InputError as `coursekit.models.config_file.read_config`, and for missing fields of experts.
    """
    from coursekit.models.config_file import read_fields, shape_of
    from coursekit.plan import ExpertLayers

    values = read_fields(path)
    names = _EXPERT_NAMES.get(str(values.get("model_type")))
    if names is None:
        return shape_of(values, path.name), None
    given = {ours: values[theirs] for ours, theirs in names.items() if values.get(theirs) is not None}
    if missing := [theirs for ours, theirs in names.items() if ours not in given and ours != "every"]:
        raise InputError(f"{path.name} is not a whole shape", expected=", ".join(missing), got="none of them")
    # But for its experts it is a Llama. Heads of DeepSeek's own widths are planned as d_model / n_heads.
    llama = {**values, "model_type": "llama", "head_dim": None}
    return shape_of(llama, path.name), ExpertLayers(**given)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _closest(asked: str, names: list[str]) -> str:
    import difflib

    by_letters = {_letters(name): name for name in names}
    close = difflib.get_close_matches(asked, by_letters, n=1, cutoff=0.8)
    return f"did you mean {by_letters[close[0]]}? " if close else ""
