"""The `coursekit plan` command: will it fit, how long, on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from coursekit.cli.plan_counts import count, length
from coursekit.errors import InputError

Text = str | None
MODEL, CLUSTER, LAYOUT = "The model, by numbers", "The cluster", "The layout; what is not given is chosen"
EXPERTS, RUN = "Experts, in the place of feed-forward layers", "The training"


def _option(panel: str, text: str, name: str = "") -> typer.models.OptionInfo:
    return typer.Option(*([name] if name else []), help=text, rich_help_panel=panel)


def _count(panel: str, text: str, reader: Callable[[str | int], int] = count) -> typer.models.OptionInfo:
    def read(value: str | int) -> int:
        try:
            return reader(value)
        except InputError as error:  # with the option's name before it
            raise typer.BadParameter(str(error)) from error

    return typer.Option(help=text, rich_help_panel=panel, parser=read, metavar="<count>")


Count = int | None


def plan(
    model: Annotated[Text, typer.Argument(help="gpt3-175b, llama3-8b, mixtral-8x7b, ...")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON: a shape's fields, or a config.json.")] = None,
    layers: Annotated[Count, _count(MODEL, "Number of layers.")] = None,
    d_model: Annotated[Count, _count(MODEL, "Width of the hidden states.")] = None,
    heads: Annotated[Count, _count(MODEL, "Query heads.")] = None,
    kv_heads: Annotated[Count, _count(MODEL, "Key and value heads.")] = None,
    d_ff: Annotated[Count, _count(MODEL, "Width inside the feed-forward layer.")] = None,
    vocab: Annotated[Count, _count(MODEL, "Number of token ids.")] = None,
    llama: Annotated[bool, _option(MODEL, "RMS norm, SwiGLU, rotary positions, no bias.", "--llama")] = False,
    experts: Annotated[Count, _count(EXPERTS, "Routed experts of a layer.")] = None,
    top_k: Annotated[Count, _count(EXPERTS, "Of these, those that a token uses; else 2.")] = None,
    expert_d_ff: Annotated[Count, _count(EXPERTS, "Width inside an expert; else --d-ff.")] = None,
    shared_experts: Annotated[Count, _count(EXPERTS, "Experts that every token uses.")] = None,
    dense_layers: Annotated[Count, _count(EXPERTS, "First layers, which have no experts.")] = None,
    devices: Annotated[int, _count(CLUSTER, "Devices in all.")] = 1,
    per_node: Annotated[int, _count(CLUSTER, "Devices of a node.")] = 8,
    device: Annotated[str, _option(CLUSTER, "A data sheet's name, or a part of it.")] = "H100 SXM",
    network: Annotated[float, _option(CLUSTER, "Gb/s of a device to other nodes.")] = 400,
    seq_len: Annotated[Count, _count(RUN, "Tokens of a sequence; else all positions.", length)] = None,
    batch_tokens: Annotated[Count, _count(RUN, "Tokens of a step; else about 4 million.")] = None,
    tokens: Annotated[Count, _count(RUN, "Tokens in all; else the compute-optimal ones.")] = None,
    recipe: Annotated[str, _option(RUN, "Copies of a parameter: mixed_18, ...")] = "mixed_16",
    dp: Annotated[Count, _count(LAYOUT, "Copies of the model.")] = None,
    tp: Annotated[Count, _count(LAYOUT, "Parts of every matrix.")] = None,
    pp: Annotated[Count, _count(LAYOUT, "Pipeline ranks.")] = None,
    cp: Annotated[Count, _count(LAYOUT, "Parts of a sequence.")] = None,
    ep: Annotated[Count, _count(LAYOUT, "Parts of a layer's experts; tokens of their own.")] = None,
    zero: Annotated[int | None, _option(LAYOUT, "Stage of ZeRO, 0 to 3.")] = None,
    micro_batch: Annotated[Count, _count(LAYOUT, "Sequences of a forward pass.")] = None,
    checkpointing: Annotated[Text, _option(LAYOUT, "none, selective or full.")] = None,
    top: Annotated[int, typer.Option(help="Other layouts to show, each with why it loses.", min=0)] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a training needs: memory by part, time, and which layout; exit status 1 if none fits.

    Counts are written as 4000000, 4_000_000, 4e6 or 4M.
    """
    from coursekit.cli.plan_question import cluster_of, model_of
    from coursekit.cli.plan_text import answer_as_json, answer_as_text, make_answer

    numbers = {"n_layers": layers, "d_model": d_model, "n_heads": heads, "n_kv_heads": kv_heads, "d_ff": d_ff}
    of_experts = {"n_experts": experts, "top_k": top_k, "d_ff": expert_d_ff}
    of_experts |= {"n_shared": shared_experts, "first_dense": dense_layers}
    shape, chosen = model_of(
        model, config, {**numbers, "vocab_size": vocab, "max_seq_len": seq_len}, of_experts, llama=llama
    )
    sizes = {"dp_size": dp, "tp_size": tp, "pp_size": pp, "cp_size": cp, "ep_size": ep, "zero_stage": zero}
    options = {"micro_batch_size": micro_batch, "checkpointing": checkpointing}
    answer = make_answer(
        shape,
        cluster_of(devices, per_node=per_node, device=device, network=network),
        experts=chosen,
        seq_len=seq_len or shape.max_seq_len,
        batch_tokens=batch_tokens,
        tokens=tokens,
        recipe=recipe,
        fixed={name: value for name, value in {**sizes, **options}.items() if value is not None},
    )
    typer.echo(answer_as_json(answer) if as_json else answer_as_text(answer, top=top))
    if not answer.ranked[0].fits:
        raise typer.Exit(1)
