"""The planner as a page: a plain form, and the formulas of the package translated when the book is built."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, get_args

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from course_book.course import root_of
from coursekit.cli.plan_counts import COUNT, TIMES
from coursekit.cli.plan_models import planned_models
from coursekit.models.config import Activation, Norm, Position
from coursekit.plan.cluster import Cluster
from coursekit.plan.data_sheets import DEVICES
from coursekit.plan.javascript import to_javascript
from coursekit.plan.layout import AttentionKernel, Checkpointing, Layout, PipelineOrder, scalars
from coursekit.plan.memory_per_device import known_values
from coursekit.plan.recipes import RECIPES

_SCRIPT = "planner.js"
# What the page shows first: a model of eight billion parameters on one node, in a layout that fits.
_MODEL, _RECIPE, _DEVICE = "llama3-8b", "mixed_18", "H100 SXM"
_MODELS = {name: scalars(shape, None, experts) for name, (shape, experts) in planned_models().items()}
_SHAPE = _MODELS[_MODEL]
# The page plans every stage of a pipeline, which has at most so many as there are layers: it must not hang.
_MOST = {"n_layers": 2000}
# Numbers of the model that are not there at all where they are 0.
_LEAST = dict.fromkeys(
    ("n_experts", "n_shared_experts", "first_dense_layers", "kv_rank", "q_rank", "rope_dim"), 0
)


def setup(app: Sphinx) -> None:
    """Register the directive, and write the script once the site is there."""
    app.add_directive("planner", Planner)
    app.connect("build-finished", _write_script)


def script() -> str:
    """Return the page's script: the translated formulas, then what reads the form and draws."""
    return to_javascript() + Path(__file__).with_name(_SCRIPT).read_text("utf-8")


def _write_script(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    # Not among the sources in _static: Jupyter Book would load it on every page.
    written = Path(app.outdir) / "_static" / _SCRIPT
    text = script()
    if not written.is_file() or written.read_text("utf-8") != text:
        written.write_text(text, "utf-8")


class Planner(SphinxDirective):
    """The form, the places of its results, and the data that it chooses from."""

    def run(self) -> list[nodes.Node]:
        """Return the page's HTML."""
        package = root_of(self.env) / "coursekit"
        for path in (
            "models/presets.py",
            "cli/plan_models.py",
            "cli/plan_counts.py",
            "plan/data_sheets.py",
            "plan/recipes.py",
            "plan/layout.py",
        ):
            self.env.note_dependency(str(package / path))
        self.env.note_dependency(__file__)
        return [nodes.raw("", planner_html("../" * self.env.docname.count("/")), format="html")]


def planner_html(to_root: str) -> str:
    """Return the form and the places of its results; `to_root` leads from the page to the site's root."""
    return f"""
<form class="planner" autocomplete="off">
{_fieldset("Model", _of_the_model())}
{_fieldset("Experts", _of_the_experts())}
{_fieldset("Latent attention", _of_latent_attention())}
{_fieldset("Training", _of_the_training())}
{_fieldset("Cluster", _of_the_cluster())}
{_fieldset("Layout", _of_the_layout())}
</form>
<noscript><p>This needs JavaScript; <code>coursekit plan</code> says the same in a terminal.</p></noscript>
<p class="planner-verdict" role="status"></p>
<div class="planner-result">
<div class="planner-bar" role="img"></div>
{_table("memory", "Memory of one device, by part (dashed line above: what a plan may use)", "GiB")}
{_table("step", "Seconds of an optimizer step, by what is waited for", "s")}
{_table("sent", "Bytes that a device sends in an optimizer step", "GB")}
{_table("run", "The whole run", "")}
</div>
<script type="application/json" id="planner-data">{json.dumps(_data())}</script>
<script src="{to_root}_static/{_SCRIPT}" defer></script>
"""


def _data() -> dict[str, Any]:
    """Return what the form's names stand for: arguments of formulas, made by the package itself."""
    of_layouts = set(vars(Layout()))
    shape, _ = planned_models()[_MODEL]
    recipes = {name: known_values(shape, Layout(), None, recipe) for name, recipe in RECIPES.items()}
    clusters = {name: Cluster(device=name) for name in DEVICES}
    cluster = clusters[_DEVICE]
    return {
        "models": {
            name: {k: v for k, v in model.items() if k not in of_layouts} for name, model in _MODELS.items()
        },
        "recipes": {n: {k: v for k, v in r.items() if k not in _SHAPE} for n, r in recipes.items()},
        "devices": {n: c.scalars() | {"memory_bytes": c.sheet.memory_bytes} for n, c in clusters.items()},
        "others": _SHAPE | cluster.scalars(),
        "usable_memory": cluster.usable_memory,
        "count": {"pattern": COUNT.pattern, "times": TIMES},
    }


def _numbers_of_the_model(labels: Mapping[str, str]) -> Iterator[str]:
    for name, label in labels.items():
        yield _number(name, label, _SHAPE[name], least=_LEAST.get(name, 1), most=_MOST.get(name))


def _of_the_model() -> Iterator[str]:
    yield _choice("model", "Model", {"": "numbers of your own", **{name: name for name in _MODELS}}, _MODEL)
    yield from _numbers_of_the_model(
        {
            "n_layers": "Layers",
            "d_model": "Width",
            "n_heads": "Heads",
            "n_kv_heads": "Key-value heads",
            "d_ff": "Feed-forward width",
        }
    )
    yield _count("vocab_size", "Vocabulary", str(_SHAPE["vocab_size"]))
    yield from _numbers_of_the_model({"max_seq_len": "Positions"})
    for name, label, options in (
        ("norm", "Norm", get_args(Norm)),
        ("activation", "Activation", get_args(Activation)),
        ("position", "Positions are", get_args(Position)),
    ):
        yield _choice(name, label, options, _SHAPE[name])
    yield _switch("bias", "biases", _SHAPE["bias"])
    yield _switch("tie_embeddings", "head shares the embedding", _SHAPE["tie_embeddings"])


def _of_the_experts() -> Iterator[str]:
    yield from _numbers_of_the_model(
        {
            "n_experts": "Experts of a layer (0: none)",
            "top_k": "Experts a token",
            "expert_d_ff": "Width of an expert",
            "n_shared_experts": "Shared experts",
            "first_dense_layers": "Dense layers first",
        }
    )


def _of_latent_attention() -> Iterator[str]:
    yield from _numbers_of_the_model(
        {
            "kv_rank": "Key-value rank (0: none)",
            "q_rank": "Query rank (0: none)",
            "nope_dim": "Head without rotary",
            "rope_dim": "Head with rotary",
            "v_dim": "Value of a head",
        }
    )


def _of_the_training() -> Iterator[str]:
    copies = {name: f"{name}: {recipe.bytes_per_param}" for name, recipe in RECIPES.items()}
    yield _choice("recipe", "Copies, bytes a parameter", copies, _RECIPE)
    yield _number("seq_len", "Tokens of a sequence", _SHAPE["max_seq_len"])
    yield _number("micro_batch_size", "Sequences of a micro-batch", 1)
    yield _number("grad_accum_steps", "Micro-batches of a step", 16)
    yield _count("num_tokens", "Tokens of the run", "", empty="compute-optimal")
    yield _choice("checkpointing", "Checkpointing", get_args(Checkpointing), "none")
    yield _choice("attention", "Attention's scores", get_args(AttentionKernel), "flash")


def _of_the_cluster() -> Iterator[str]:
    yield _choice("device", "Device", list(DEVICES), _DEVICE)
    yield _count("num_devices", "Devices", "8")
    yield _number("devices_per_node", "Devices of a node", 8)
    yield _number("network", "Network, Gb/s a device", 400, step="any")


def _of_the_layout() -> Iterator[str]:
    yield _number("tp_size", "Tensor parallel", 2)
    yield _number("pp_size", "Pipeline stages", 1)
    yield _number("cp_size", "Context parallel", 1)
    yield _number("ep_size", "Expert parallel", 1)
    stages = {"0": "0: whole copies", "1": "1: optimizer state", "2": "2: gradients as well", "3": "3: all"}
    yield _choice("zero_stage", "ZeRO shards", stages, "3")
    yield _choice("schedule", "Order of the pipeline", get_args(PipelineOrder), "1f1b")
    yield _number("stages_per_rank", "Stages a rank (interleaved)", 1)
    yield _switch("sequence_parallel", "sequence parallel", True)


def _fieldset(title: str, fields: Iterable[str]) -> str:
    return f"<fieldset><legend>{title}</legend>\n" + "\n".join(fields) + "\n</fieldset>"


def _number(
    name: str, label: str, value: float, *, least: float = 1, most: float | None = None, step: str = "1"
) -> str:
    keys = "numeric" if step == "1" else "decimal"
    limit = "" if most is None else f' max="{most}"'
    return (
        f'<label><span>{label}</span><input type="number" inputmode="{keys}" name="{name}" value="{value}" '
        f'min="{least}"{limit} step="{step}" required></label>'
    )


def _count(name: str, label: str, value: str, *, empty: str = "") -> str:
    needed = f'placeholder="{empty}"' if empty else "required"
    return (
        f'<label><span>{label}</span><input type="text" data-count autocapitalize="off" spellcheck="false" '
        f'name="{name}" value="{value}" {needed}></label>'
    )


def _choice(name: str, label: str, options: Mapping[str, str] | Iterable[str], chosen: str) -> str:
    pairs = options.items() if isinstance(options, Mapping) else ((option, option) for option in options)
    inside = "".join(
        f'<option value="{escape(value)}"{" selected" * (value == chosen)}>{escape(text)}</option>'
        for value, text in pairs
    )
    return f'<label><span>{label}</span><select name="{name}">{inside}</select></label>'


def _switch(name: str, label: str, checked: bool) -> str:
    return (
        f'<label class="planner-switch"><input type="checkbox" name="{name}"{" checked" * checked}>'
        f"<span>{label}</span></label>"
    )


def _table(name: str, caption: str, unit: str) -> str:
    return (
        f'<table class="planner-table" data-part="{name}" data-unit="{unit}"><caption>{caption}</caption>'
        "<tbody></tbody></table>"
    )
