"""What `coursekit plan` answers, for people in lines of any width, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from coursekit.errors import InputError
from coursekit.units import format_bytes, format_count, format_seconds

_BATCH_TOKENS = 2**22
_NAME_WIDTH, _VALUE_WIDTH = 16, 9


@dataclasses.dataclass(frozen=True)
class Answer:
    """Everything that is known about the question: the model, and the layouts in their order."""

    shape: Any
    cluster: Any
    seq_len: int
    batch_tokens: int
    tokens: float
    recipe: str
    parameters: Any
    flops_per_token: Any
    ranked: list[Any]
    experts: Any = None
    asked_batch_tokens: int | None = None

    @property
    def run_seconds(self) -> float:
        """Of the whole run with the best layout."""
        return self.tokens / self.batch_tokens * self.ranked[0].seconds

    @property
    def active_parameters(self) -> float:
        """Parameters that a token uses: of the routed experts those that are chosen."""
        from coursekit.formulas.parameters import parameters_used

        n_experts, top_k = (self.experts.n_experts, self.experts.top_k) if self.experts else (0, 0)
        return parameters_used(dict(self.parameters.parts), n_experts, top_k)

    @property
    def run_flops(self) -> float:
        """6 N D, with the parameters that a token uses."""
        return 6 * self.active_parameters * self.tokens


def make_answer(
    shape: Any,
    cluster: Any,
    *,
    seq_len: int,
    batch_tokens: int | None,
    tokens: float | None,
    recipe: str,
    fixed: dict[str, Any],
    experts: Any = None,
) -> Answer:
    """Return the plan.

    Raises: InputError as `coursekit.plan` does, and if every layout is impossible.
    """
    from coursekit import plan

    used = whole_sequences(batch_tokens or max(_BATCH_TOKENS, seq_len), seq_len)
    ranked = plan.rank_layouts(
        shape,
        cluster,
        global_batch_tokens=used,
        seq_len=seq_len,
        recipe=recipe,
        experts=experts,
        fixed=fixed,
    )
    if ranked[0].memory is None:
        raise InputError(f"no layout is possible; {_impossible(ranked)}")
    answer = Answer(
        shape,
        cluster,
        seq_len,
        used,
        tokens or 0,
        recipe,
        plan.parameters(shape, experts=experts),
        plan.flops_per_token(shape, seq_len=seq_len, experts=experts),
        ranked,
        experts,
        batch_tokens,
    )
    if tokens:
        return answer
    return dataclasses.replace(answer, tokens=plan.compute_optimal_tokens(answer.active_parameters))


def whole_sequences(tokens: int, seq_len: int) -> int:
    """Return the tokens of a batch of whole sequences, at most a twentieth from what was asked for.

    Of the numbers of sequences that are so near, the one that can be halved most often, since ranks divide
    them: 16e6 tokens of sequences of 8192 are 1953.1 of these, and 2048 are meant.

    Raises: InputError if no whole number of sequences is near.

    >>> whole_sequences(16_000_000, 8192) // 8192, whole_sequences(3 * 8192, 8192) // 8192
    (2048, 3)
    """
    if tokens % seq_len == 0:
        return tokens
    for power in range(tokens.bit_length(), -1, -1):
        near = round(tokens / seq_len / 2**power) * 2**power * seq_len
        if near and abs(near - tokens) <= tokens / 20:
            return near
    raise InputError(
        "the batch is no whole number of sequences",
        expected=f"a multiple of {seq_len} tokens",
        got=tokens,
        fix=f"--batch-tokens {max(1, round(tokens / seq_len)) * seq_len}, or another --seq-len",
    )


def _impossible(ranked: list[Any]) -> str:
    """Return why the layouts are impossible: the most frequent reasons, each once."""
    from collections import Counter

    reasons = Counter(each.why.removeprefix("impossible: ") for each in ranked)
    told = [reason for reason, _ in reasons.most_common(3)]
    return ". Or: ".join(told)


def answer_as_json(answer: Answer) -> str:
    """Return all of it, in bytes, seconds and operations."""
    report = {
        "model": {
            "shape": dataclasses.asdict(answer.shape),
            "experts": answer.experts and dataclasses.asdict(answer.experts),
            "parameters": _parts(answer.parameters),
            "active_parameters": answer.active_parameters,
            "flops_per_token": _parts(answer.flops_per_token),
        },
        "cluster": {**dataclasses.asdict(answer.cluster), "num_devices": answer.cluster.num_devices},
        "training": {
            "seq_len": answer.seq_len,
            "batch_tokens": answer.batch_tokens,
            "recipe": answer.recipe,
            "tokens": answer.tokens,
            "flops_6nd": answer.run_flops,
            "seconds": answer.run_seconds,
        },
        "layouts": [
            {
                "layout": dataclasses.asdict(each.layout),
                "fits": each.fits,
                "why": each.why,
                "memory_bytes": each.memory and _parts(each.memory),
                "step_seconds": each.step and _parts(each.step),
                "mfu": each.mfu,
            }
            for each in answer.ranked
        ],
    }
    return json.dumps(report, indent=1)


def _parts(breakdown: Any) -> dict[str, float]:
    return {**breakdown.parts, "total": breakdown.total}


def answer_as_text(answer: Answer, *, top: int, width: int | None = None) -> str:
    """Return the answer for a terminal of `width` columns; from 40 on nothing is cut."""
    width = min(100, width or shutil.get_terminal_size((80, 24)).columns)
    best = answer.ranked[0]
    usable = answer.cluster.usable_bytes
    stage = "; of the pipeline's stages the one that needs most" if best.layout.pp_size > 1 else ""
    lines = [
        *_wrapped(_of_the_model(answer), width),
        "",
        *_wrapped(f"layout: {layout_in_words(best.layout)}", width),
        *_wrapped(_of_checkpointing(answer), width),
        "",
        f"memory of a device: {'fits' if best.fits else 'DOES NOT FIT'}",
        *_bars(best.memory, max(usable, best.bytes), format_bytes, width),
        *_wrapped(
            f"of {format_bytes(usable)} that a plan may use on {answer.cluster.sheet.name}{stage}", width
        ),
        "",
        f"an optimizer step, MFU {best.mfu:.0%}",
        *_bars(best.step, best.seconds, format_seconds, width),
        "",
        *_wrapped(_of_the_run(answer), width),
    ]
    if others := answer.ranked[1 : 1 + top]:
        lines += ["", "other layouts, and why they lose"]
        for each in others:
            lines += _wrapped(f"{layout_in_words(each.layout)}: {each.why}", width, indent="  ")
    return "\n".join(lines)


def _of_the_model(answer: Answer) -> str:
    from coursekit.plan import recipe

    flops = answer.flops_per_token.total
    active = ""
    if answer.experts:
        active = f" ({format_count(answer.active_parameters)} of them for a token)"
    asked = answer.asked_batch_tokens or answer.batch_tokens
    instead = f", for the {asked:,} asked for," if asked != answer.batch_tokens else ""
    copies = f"{answer.recipe} ({recipe(answer.recipe).bytes_per_param:g} bytes a parameter)"
    return (
        f"{format_count(answer.parameters.total)} parameters{active}, {flops:.3g} FLOPs a token, {copies}, "
        f"steps of {format_count(answer.batch_tokens)} tokens{instead} in "
        f"{_of(answer.batch_tokens // answer.seq_len, 'sequence')} of {answer.seq_len:,}"
    )


def _of_checkpointing(answer: Answer) -> str:
    """Return what the best layout would need without checkpointing, if that is why it has it; else ""."""
    from coursekit.plan import memory

    best = answer.ranked[0]
    if best.layout.checkpointing == "none":
        return ""
    without = memory(
        answer.shape,
        dataclasses.replace(best.layout, checkpointing="none"),
        seq_len=answer.seq_len,
        recipe=answer.recipe,
        experts=answer.experts,
    )
    return f"without checkpointing it needs {format_bytes(without.total)} of a device"


def _of_the_run(answer: Answer) -> str:
    hours = answer.run_seconds / 3600 * answer.cluster.num_devices
    return (
        f"the run: {format_count(answer.tokens)} tokens, 6 N D = {answer.run_flops:.3g} FLOPs, "
        f"{_long(answer.run_seconds)} on {_of(answer.cluster.num_devices, 'device')}, "
        f"{format_count(hours)} device hour" + "s" * (format_count(hours) != "1")
    )


def _long(seconds: float) -> str:
    years = seconds / (365.25 * 86400)
    return f"{years:,.1f} years" if years >= 2 else format_seconds(seconds)


def _of(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + "s" * (number != 1)


def layout_in_words(layout: Any) -> str:
    """Return a layout's sizes and options, without those that change nothing."""
    axes = [f"{axis} {getattr(layout, f'{axis}_size')}" for axis in ("dp", "tp", "pp", "cp", "ep")]
    words = [axis for axis in axes if not axis.endswith(" 1")] or ["one device"]
    if layout.zero_stage:
        words.append(f"ZeRO-{layout.zero_stage}")
    if layout.checkpointing != "none":
        words.append(f"{layout.checkpointing} checkpointing")
    if layout.stages_per_rank > 1:
        words.append(f"{layout.stages_per_rank} stages a rank")
    micro_batches = f"{_of(layout.grad_accum_steps, 'micro-batch')}".replace("batchs", "batches")
    return ", ".join([*words, f"{micro_batches} of {_of(layout.micro_batch_size, 'sequence')}"])


def _bars(breakdown: Any, full: float, write: Callable[[float], str], width: int) -> Iterable[str]:
    """Yield a line a part: name, bar of its share of `full`, value; then the total."""
    room = max(4, width - _NAME_WIDTH - _VALUE_WIDTH - 3)
    for name, value in breakdown.parts.items():
        if value:
            bar = _bar(value / full, room)
            yield f"{name.replace('_', ' '):<{_NAME_WIDTH}} {bar:<{room}} {write(value):>{_VALUE_WIDTH}}"
    yield f"{'total':<{_NAME_WIDTH}} {'':<{room}} {write(breakdown.total):>{_VALUE_WIDTH}}"


def _bar(share: float, room: int) -> str:
    full, eighths = divmod(math.ceil(share * room * 8), 8)
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return "#" * (full + (eighths > 3))
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ")
