"""What `coursekit plan` is asked about: a shape, a cluster, made from options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coursekit.errors import InputError

_NEEDED = ("n_layers", "d_model", "n_heads", "vocab_size")
_FLAGS = {"n_layers": "--layers", "d_model": "--d-model", "n_heads": "--heads", "vocab_size": "--vocab"}
_SEQ_LEN = 2048
_LLAMA = {
    "norm": "rmsnorm",
    "activation": "swiglu",
    "position": "rope",
    "bias": False,
    "tie_embeddings": False,
}


def shape_of(model: str | None, config: Path | None, numbers: dict[str, int | None], *, llama: bool) -> Any:
    """Return the shape that a name, a file or numbers describe; numbers change a named one.

    Args:
        model: a preset's name.
        config: a JSON file.
        numbers: fields of `GPTConfig`, None where not given.
        llama: whether numbers alone mean a model of Llama's kind.
    Raises: InputError if there is no model, or more than one.
    """
    import dataclasses

    from coursekit.models import GPTConfig, preset
    from coursekit.models.config_file import read_config

    given = {name: value for name, value in numbers.items() if value is not None}
    if model and config:
        raise InputError("two models", expected="a name or a file", got=f"{model} and {config}")
    if model or config:
        base = preset(model) if model else read_config(config)
        changed = {name: value for name, value in given.items() if name != "max_seq_len"}
        return dataclasses.replace(base, **changed)
    if missing := [_FLAGS[name] for name in _NEEDED if name not in given]:
        raise InputError(
            "no model to plan for",
            expected="a name such as llama3-8b, --config FILE, or numbers",
            got=f"no {', no '.join(missing)}",
        )
    return GPTConfig(**{"max_seq_len": _SEQ_LEN, **given, **(_LLAMA if llama else {})})


def cluster_of(devices: int, *, per_node: int, device: str, network: float) -> Any:
    """Return the cluster of so many devices.

    Args:
        devices: in all.
        per_node: of a full node.
        device: a data sheet's name, or a part of it that only one has, in any case.
        network: Gb/s of one device to other nodes.
    Raises: InputError if nodes would not be full, or the device is unknown.
    """
    from coursekit.plan import Cluster

    if devices < 1 or per_node < 1 or (devices > per_node and devices % per_node):
        raise InputError(
            "the nodes are not full",
            expected=f"up to {per_node} devices, or a multiple of {per_node}",
            got=devices,
            fix="--per-node says how many a node has",
        )
    return Cluster(
        max(1, devices // per_node),
        min(devices, per_node),
        device=_device_of(device),
        inter_bytes_per_second=network * 1e9 / 8,
    )


def _device_of(name: str) -> str:
    from coursekit.plan import DEVICES

    found = [known for known in DEVICES if name.lower() in known.lower()]
    exact = [known for known in found if known.lower() == name.lower()]
    if len(exact or found) != 1:
        raise InputError(
            "unknown device" if not found else "more than one such device",
            expected=" or ".join(found or DEVICES),
            got=repr(name),
        )
    return (exact or found)[0]
