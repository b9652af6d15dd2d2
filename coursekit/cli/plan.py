"""The `coursekit plan` command: will it fit, how long, on what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Number, Text = int | None, str | None
MODEL, CLUSTER, LAYOUT = "The model, by numbers", "The cluster", "The layout; what is not given is chosen"
RUN = "The training"


def _option(panel: str, text: str, name: str = "") -> typer.models.OptionInfo:
    return typer.Option(*([name] if name else []), help=text, rich_help_panel=panel)


def plan(
    model: Annotated[Text, typer.Argument(help="gpt3-175b, llama3-8b, ...: a preset's name.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON: a shape's fields, or a config.json.")] = None,
    layers: Annotated[Number, _option(MODEL, "Number of layers.")] = None,
    d_model: Annotated[Number, _option(MODEL, "Width of the hidden states.")] = None,
    heads: Annotated[Number, _option(MODEL, "Query heads.")] = None,
    kv_heads: Annotated[Number, _option(MODEL, "Key and value heads.")] = None,
    d_ff: Annotated[Number, _option(MODEL, "Width inside the feed-forward layer.")] = None,
    vocab: Annotated[Number, _option(MODEL, "Number of token ids.")] = None,
    llama: Annotated[bool, _option(MODEL, "RMS norm, SwiGLU, rotary positions, no bias.", "--llama")] = False,
    devices: Annotated[int, _option(CLUSTER, "Devices in all.")] = 1,
    per_node: Annotated[int, _option(CLUSTER, "Devices of a node.")] = 8,
    device: Annotated[str, _option(CLUSTER, "A data sheet's name.")] = "H100 SXM",
    network: Annotated[float, _option(CLUSTER, "Gb/s of a device to other nodes.")] = 400,
    seq_len: Annotated[int | None, _option(RUN, "Tokens of a sequence; else all positions.")] = None,
    batch_tokens: Annotated[int | None, _option(RUN, "Tokens of a step; else about 4 million.")] = None,
    tokens: Annotated[float | None, _option(RUN, "Tokens in all; else the compute-optimal ones.")] = None,
    recipe: Annotated[str, _option(RUN, "Copies of a parameter: mixed_18, ...")] = "mixed_16",
    dp: Annotated[Number, _option(LAYOUT, "Copies of the model.")] = None,
    tp: Annotated[Number, _option(LAYOUT, "Parts of every matrix.")] = None,
    pp: Annotated[Number, _option(LAYOUT, "Pipeline stages.")] = None,
    cp: Annotated[Number, _option(LAYOUT, "Parts of a sequence.")] = None,
    zero: Annotated[Number, _option(LAYOUT, "Stage of ZeRO, 0 to 3.")] = None,
    micro_batch: Annotated[Number, _option(LAYOUT, "Sequences of a forward pass.")] = None,
    checkpointing: Annotated[Text, _option(LAYOUT, "none, selective or full.")] = None,
    top: Annotated[int, typer.Option(help="Other layouts that are shown, with the reason each loses.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a training needs: memory by part, time, and which layout; exit status 1 if none fits."""
    from coursekit.cli.plan_question import cluster_of, shape_of
    from coursekit.cli.plan_text import answer_as_json, answer_as_text, make_answer

    numbers = {"n_layers": layers, "d_model": d_model, "n_heads": heads, "n_kv_heads": kv_heads, "d_ff": d_ff}
    shape = shape_of(model, config, {**numbers, "vocab_size": vocab, "max_seq_len": seq_len}, llama=llama)
    sizes = {"dp_size": dp, "tp_size": tp, "pp_size": pp, "cp_size": cp, "zero_stage": zero}
    options = {"micro_batch_size": micro_batch, "checkpointing": checkpointing}
    answer = make_answer(
        shape,
        cluster_of(devices, per_node=per_node, device=device, network=network),
        seq_len=seq_len or shape.max_seq_len,
        batch_tokens=batch_tokens,
        tokens=tokens,
        recipe=recipe,
        fixed={name: value for name, value in {**sizes, **options}.items() if value is not None},
    )
    typer.echo(answer_as_json(answer) if as_json else answer_as_text(answer, top=top))
    if not answer.ranked[0].fits:
        raise typer.Exit(1)
