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

    @property
    def run_seconds(self) -> float:
        """Of the whole run with the best layout."""
        return self.tokens / self.batch_tokens * self.ranked[0].seconds


def make_answer(
    shape: Any,
    cluster: Any,
    *,
    seq_len: int,
    batch_tokens: int | None,
    tokens: float | None,
    recipe: str,
    fixed: dict[str, Any],
) -> Answer:
    """Return the plan.

    Raises: InputError as `coursekit.plan` does, and if every layout is impossible.
    """
    from coursekit import plan

    parameters = plan.parameters(shape)
    batch_tokens = batch_tokens or max(1, _BATCH_TOKENS // seq_len) * seq_len
    ranked = plan.rank_layouts(
        shape, cluster, global_batch_tokens=batch_tokens, seq_len=seq_len, recipe=recipe, fixed=fixed
    )
    if ranked[0].memory is None:
        raise InputError("no layout is possible", got=ranked[0].why.removeprefix("impossible: "))
    return Answer(
        shape,
        cluster,
        seq_len,
        batch_tokens,
        tokens or plan.compute_optimal_tokens(parameters.total),
        recipe,
        parameters,
        plan.flops_per_token(shape, seq_len=seq_len),
        ranked,
    )


def answer_as_json(answer: Answer) -> str:
    """Return all of it, in bytes, seconds and operations."""
    report = {
        "model": {
            "shape": dataclasses.asdict(answer.shape),
            "parameters": _parts(answer.parameters),
            "flops_per_token": _parts(answer.flops_per_token),
        },
        "cluster": {**dataclasses.asdict(answer.cluster), "num_devices": answer.cluster.num_devices},
        "training": {
            "seq_len": answer.seq_len,
            "batch_tokens": answer.batch_tokens,
            "recipe": answer.recipe,
            "tokens": answer.tokens,
            "flops_6nd": 6 * answer.parameters.total * answer.tokens,
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
    lines = [
        *_wrapped(_of_the_model(answer), width),
        "",
        *_wrapped(f"layout: {layout_in_words(best.layout)}", width),
        "",
        f"memory of a device: {'fits' if best.fits else 'DOES NOT FIT'}",
        *_bars(best.memory, max(usable, best.bytes), format_bytes, width),
        *_wrapped(f"of {format_bytes(usable)} that a plan may use on {answer.cluster.sheet.name}", width),
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
    flops = answer.flops_per_token.total
    return (
        f"{format_count(answer.parameters.total)} parameters, {flops:.3g} FLOPs a token, {answer.recipe}, "
        f"steps of {format_count(answer.batch_tokens)} tokens in sequences of {answer.seq_len}"
    )


def _of_the_run(answer: Answer) -> str:
    flops = 6 * answer.parameters.total * answer.tokens
    hours = answer.run_seconds / 3600 * answer.cluster.num_devices
    return (
        f"the run: {format_count(answer.tokens)} tokens, 6 N D = {flops:.3g} FLOPs, "
        f"{format_seconds(answer.run_seconds)} on {answer.cluster.num_devices} devices, "
        f"{format_count(hours)} device hours"
    )


def layout_in_words(layout: Any) -> str:
    """Return a layout's sizes and options, without those that change nothing."""
    axes = [f"{axis} {getattr(layout, f'{axis}_size')}" for axis in ("dp", "tp", "pp", "cp")]
    words = [axis for axis in axes if not axis.endswith(" 1")] or ["one device"]
    if layout.zero_stage:
        words.append(f"ZeRO-{layout.zero_stage}")
    if layout.checkpointing != "none":
        words.append(f"{layout.checkpointing} checkpointing")
    if layout.stages_per_rank > 1:
        words.append(f"{layout.stages_per_rank} stages a rank")
    return ", ".join([*words, f"{layout.grad_accum_steps} × {layout.micro_batch_size} sequences"])


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
