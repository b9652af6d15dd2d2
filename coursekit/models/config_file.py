"""Shapes from files: this package's own fields, or those of a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coursekit.errors import InputError
from coursekit.models.config import GPTConfig

_FIELDS = {field.name for field in dataclasses.fields(GPTConfig)}
LLAMA: Mapping[str, Any] = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "position": "rope",
    "bias": False,
    "tie_embeddings": False,
}
"""The fields in which shapes of Llama's kind agree."""
# What a model_type means here, and where this field of ours stands in its file.
_LLAMA_NAMES = {
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "d_ff": "intermediate_size",
    "tie_embeddings": "tie_word_embeddings",
    "rope_theta": "rope_theta",
}
_GPT2_NAMES = {
    "vocab_size": "vocab_size",
    "max_seq_len": "n_positions",
    "d_model": "n_embd",
    "n_layers": "n_layer",
    "n_heads": "n_head",
    "d_ff": "n_inner",
}
_MODEL_TYPES: Mapping[str, tuple[dict[str, Any], dict[str, str]]] = {
    "gpt2": ({}, _GPT2_NAMES),
    "llama": (dict(LLAMA), _LLAMA_NAMES),
    "mistral": (dict(LLAMA), _LLAMA_NAMES),
}
_NO_COUNTS = {"tie_embeddings", "rope_theta"}
_COUNTS = {
    name
    for names in (_LLAMA_NAMES, _GPT2_NAMES)
    for pair in names.items()
    if pair[0] not in _NO_COUNTS
    for name in pair
}


def read_config(path: Path) -> GPTConfig:
    """Return the shape that a JSON file describes.

    The file has fields of `GPTConfig`, or it is a Hugging Face `config.json` of model type gpt2, llama or
    mistral.

    Args:
        path: of the file.
    Raises: InputError if there is no such file, it is no JSON object, or its shape cannot be had here.
    """
    return shape_of(read_fields(path), path.name)


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields of a JSON file that describes a model.

    Raises: InputError if there is no such file, it is no JSON object, or a field that counts something is no
        whole number above 0.
    """
    if not path.is_file():
        raise InputError("no such file", got=str(path))
    try:
        values = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is no JSON", got=str(error)) from error
    if not isinstance(values, dict):
        raise InputError(f"{path.name} holds no fields", expected="a JSON object", got=type(values).__name__)
    for field in sorted(_COUNTS & values.keys()):
        value = values[field]
        if value is not None and (type(value) is not int or value < 1):
            expected = "a whole number above 0"
            raise InputError(f"{path.name}: wrong {field}", expected=expected, got=repr(value))
    return values


def shape_of(values: Mapping[str, Any], name: str) -> GPTConfig:
    """Return the shape that fields describe, those of `GPTConfig` or, with a `model_type`, Hugging Face's.

    Args:
        values: as `read_fields` returns them.
        name: of their file, for errors.
    Raises: InputError if it is not a whole shape, or none that can be had here.
    """
    return _from_hugging_face(values, name) if "model_type" in values else _from_fields(values, name)


def _from_fields(values: Mapping[str, Any], name: str) -> GPTConfig:
    if unknown := set(values) - _FIELDS:
        raise InputError(
            f"{name} has fields that no shape has",
            expected=f"some of {', '.join(sorted(_FIELDS))}, or a model_type",
            got=", ".join(sorted(unknown)),
        )
    required = {f.name for f in dataclasses.fields(GPTConfig) if f.default is dataclasses.MISSING}
    if missing := required - set(values):
        raise InputError(
            f"{name} is not a whole shape", expected=", ".join(sorted(missing)), got="none of them"
        )
    return GPTConfig(**values)


def _from_hugging_face(values: Mapping[str, Any], name: str) -> GPTConfig:
    kind = values["model_type"]
    if kind not in _MODEL_TYPES:
        raise InputError(
            f"{name} has a model type that has no shape here",
            expected=" or ".join(_MODEL_TYPES),
            got=repr(kind),
            fix="give the numbers one by one",
        )
    fixed, names = _MODEL_TYPES[kind]
    given = {ours: values[theirs] for ours, theirs in names.items() if values.get(theirs) is not None}
    if missing := [
        names[ours]
        for ours in ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads")
        if ours not in given
    ]:
        raise InputError(f"{name} is not a whole shape", expected=", ".join(missing), got="none of them")
    shape = GPTConfig(**{**fixed, **given})
    if values.get("head_dim") not in (None, shape.head_dim):
        raise InputError(
            f"{name} has heads that are not d_model / n_heads wide",
            expected=shape.head_dim,
            got=values["head_dim"],
        )
    return shape
