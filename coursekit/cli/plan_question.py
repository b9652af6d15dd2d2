"""What `coursekit plan` is asked about: a shape, a cluster, made from options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coursekit.errors import InputError

_NEEDED = ("n_layers", "d_model", "n_heads", "vocab_size")
_FLAGS = {"n_layers": "--layers", "d_model": "--d-model", "n_heads": "--heads", "vocab_size": "--vocab"}
_SEQ_LEN = 2048


def model_of(
    model: str | None,
    config: Path | None,
    numbers: dict[str, int | None],
    of_experts: dict[str, int | None],
    *,
    llama: bool,
) -> tuple[Any, Any]:
    """Return the shape that a name, a file or numbers describe, and its experts; numbers change a named one.

    Args:
        model: a published model's name.
        config: a JSON file.
        numbers: fields of `GPTConfig`, None where not given.
        of_experts: fields of `ExpertLayers`, None where not given.
        llama: whether numbers alone mean a model of Llama's kind.
    Raises: InputError if there is no model, or more than one, or a number has nothing to belong to.
    """
    import dataclasses

    from coursekit.cli.plan_models import model_by_file, model_by_name
    from coursekit.models import GPTConfig
    from coursekit.models.config_file import LLAMA
    from coursekit.plan import ExpertLayers

    given = _given(numbers)
    if model and config:
        raise InputError("two models", expected="a name or a file", got=f"{model} and {config}")
    if (model or config) and llama:
        raise InputError(
            "--llama has no effect here", expected="it beside numbers alone", got=model or str(config)
        )
    if model or config:
        base, experts = model_by_name(model) if model else model_by_file(config)
        _check_positions(base, given.pop("max_seq_len", None))
        shape = dataclasses.replace(base, **given)
    elif missing := [_FLAGS[name] for name in _NEEDED if name not in given]:
        raise InputError(
            "no model to plan for",
            expected="a name such as llama3-8b, --config FILE, or numbers",
            got=f"no {', no '.join(missing)}",
        )
    else:
        experts = None
        shape = GPTConfig(**{"max_seq_len": _SEQ_LEN, **given, **(LLAMA if llama else {})})
    if changed := _given(of_experts):
        if experts is None and "n_experts" not in changed:
            raise InputError("this model has no experts", expected="--experts as well", got=_flags(changed))
        experts = dataclasses.replace(experts, **changed) if experts else ExpertLayers(**changed)
    return shape, experts


def _given(numbers: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in numbers.items() if value is not None}


def _flags(of_experts: dict[str, int]) -> str:
    flags = {"top_k": "--top-k", "d_ff": "--expert-d-ff", "n_shared": "--shared-experts"}
    return ", ".join({**flags, "first_dense": "--dense-layers"}[name] for name in of_experts)


def _check_positions(shape: Any, seq_len: int | None) -> None:
    if seq_len is not None and shape.position == "learned" and seq_len > shape.max_seq_len:
        raise InputError(
            "the model has learned no such positions",
            expected=f"--seq-len up to {shape.max_seq_len}",
            got=seq_len,
            fix="a model by numbers may have more",
        )


def cluster_of(devices: int, *, per_node: int, device: str, network: float) -> Any:
    """Return the cluster of so many devices.

    Args:
        devices: in all.
        per_node: of a full node.
        device: a data sheet's name, or a part of it that only one has, in any case.
        network: Gb/s of one device to other nodes.
    Raises: InputError if nodes would not be full, the device is unknown, or there is no network.
    """
    from coursekit.plan import Cluster

    if devices > per_node and devices % per_node:
        sizes = [size for size in range(1, 17) if devices % size == 0]
        raise InputError(
            "the nodes are not full",
            expected=f"up to {per_node} devices, or a multiple of {per_node}",
            got=devices,
            fix=f"--per-node says how many a node has, here one of {', '.join(map(str, sizes))}",
        )
    if not 0 < network < float("inf"):
        raise InputError("wrong --network", expected="Gb/s above 0", got=f"{network:g}")
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
