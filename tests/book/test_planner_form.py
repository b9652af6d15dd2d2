"""The planner's form in use: what it says to choices, good and impossible, with no server and no network."""

import dataclasses
import json
import re

import pytest
from course_book import planner

from coursekit.cli.plan_counts import count
from coursekit.cli.plan_models import planned_models
from coursekit.errors import InputError
from coursekit.models.presets import PRESETS
from coursekit.plan.layout import Layout
from coursekit.plan.memory_per_device import memory
from coursekit.plan.parameter_count import parameters

pytestmark = pytest.mark.browser

MODELS = planned_models()


@pytest.fixture
def opened(chromium, tmp_path):
    """The form on a page of its own, opened from the disk, with what it complains about."""
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "planner.js").write_text(planner.script())
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{planner.planner_html('')}")
    page = chromium.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    assert page.complaints == []
    page.close()


def table(page, name):
    """Return a table's rows as text."""
    rows = page.locator(f"table[data-part={name}] tr").all()
    return {row.locator("th").inner_text(): row.locator("td").inner_text() for row in rows}


def test_the_form_starts_with_a_layout_that_fits(opened):
    assert opened.locator(".planner-verdict").inner_text().startswith("Fits: ")
    layout = Layout(dp_size=4, tp_size=2, zero_stage=3, sequence_parallel=True, grad_accum_steps=16)
    wanted = memory(PRESETS["llama3-8b"], layout, seq_len=8192, recipe="mixed_18")
    assert table(opened, "memory")["activations"] == f"{wanted['activations'] / 2**30:.3g} GiB"
    assert "activations" in opened.locator(".planner-bar").get_attribute("aria-label")


def test_every_field_has_a_label_and_takes_the_keyboard(opened):
    fields = opened.locator("form.planner input, form.planner select").all()
    assert {"n_experts", "top_k", "expert_d_ff", "n_shared_experts", "first_dense_layers", "ep_size"} <= {
        field.get_attribute("name") for field in fields
    }
    for field in fields:
        assert field.evaluate("field => field.labels.length") == 1
    opened.get_by_label("Tensor parallel").focus()
    opened.keyboard.press("ArrowUp")
    assert "no multiple of 3" in opened.locator(".planner-verdict").inner_text()
    opened.keyboard.press("ArrowUp")
    assert "Data parallel 2," in opened.locator(".planner-verdict").inner_text()


def test_a_preset_fills_the_numbers_and_a_number_leaves_the_preset(opened):
    opened.get_by_label("Model").select_option("gpt3-175b")
    assert opened.get_by_label("Experts a token").is_disabled()
    assert opened.get_by_label("Width", exact=True).input_value() == "12288"
    assert opened.locator(".planner-verdict").inner_text().startswith("Does not fit: ")
    assert table(opened, "run")["parameters"] == "1.75e11"
    opened.get_by_label("Layers", exact=True).fill("2")
    assert opened.get_by_label("Model").input_value() == ""
    assert table(opened, "run")["parameters"] != "1.75e11"


def test_impossible_choices_are_answered_in_a_sentence(opened):
    opened.get_by_label("Layers", exact=True).fill("")
    assert opened.locator(".planner-verdict").inner_text().startswith("Layers: ")
    opened.get_by_label("Layers", exact=True).fill("32")
    opened.get_by_label("Key-value heads").fill("1")
    assert opened.locator(".planner-verdict").inner_text() == (
        "Key-value heads (1): 2 tensor ranks cannot share them evenly."
    )
    opened.get_by_label("Key-value heads").fill("5")
    assert opened.locator(".planner-verdict").inner_text() == "The key-value heads do not divide the heads."


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        ({"num_devices": "12"}, "12 devices do not fill nodes of 8."),
        ({"num_devices": "8", "devices_per_node": "3"}, "8 devices do not fill nodes of 3."),
        ({"pp_size": "64", "num_devices": "128"}, "64 stages need as many layers, and the model has 32."),
        ({"d_model": "4128"}, "Rotary positions turn pairs: width over heads must be even."),
        ({"n_layers": "2000000"}, "Layers: "),
        ({"n_experts": "8", "top_k": "9"}, "A token cannot use 9 of 8 experts."),
        ({"n_experts": "0.5"}, "Experts of a layer: "),
        (
            {"n_experts": "6", "ep_size": "4"},
            "Experts of a layer (6): 4 expert-parallel ranks cannot",
        ),
        (
            {"n_experts": "8", "expert_d_ff": "99"},
            "Width of an expert (99): 2 tensor ranks cannot share them",
        ),
        ({"n_experts": "8", "ep_size": "8"}, "8 devices are no multiple of 16, the product of tensor,"),
        ({"kv_rank": "512", "nope_dim": "", "v_dim": "128"}, "Head without rotary: "),
        (
            {"kv_rank": "512", "nope_dim": "9", "rope_dim": "9", "v_dim": "9"},
            "Rotary positions turn pairs: an",
        ),
        ({"num_devices": "8.5"}, "Devices: write a count as 4000000, 4_000_000, 4e6 or 4M."),
        ({"num_tokens": "many"}, "Tokens of the run: write a count"),
        ({"vocab_size": ""}, "Vocabulary: "),
        (
            {"schedule": "interleaved", "pp_size": "4", "grad_accum_steps": "6"},
            "Micro-batches of a step (6): an interleaved pipeline takes them in groups of as many as it has",
        ),
        ({"network": "0"}, "Network, Gb/s a device: "),
        (
            {"position": "learned", "seq_len": "8200"},
            "8200 tokens of a sequence, and the model has learned 8192 positions.",
        ),
        (
            {"cp_size": "3", "num_devices": "48"},
            "Tokens of a sequence (8192): 6 ranks of context and sequence cannot share them evenly.",
        ),
    ],
)
def test_what_no_cluster_or_model_can_be_is_answered_as_well(opened, choices, answer):
    for name, value in choices.items():
        field = opened.locator(f"form.planner [name={name}]")
        (field.select_option if name in ("position", "schedule") else field.fill)(value)
    verdict = opened.locator(".planner-verdict").inner_text()
    assert verdict.startswith(answer)
    assert "planner-wrong" in opened.locator(".planner-result").get_attribute("class")
    assert opened.locator(".planner-result").evaluate("result => result.inert")
    # The same sentence stands beside the field, which is described by it.
    marked = opened.locator("form.planner [aria-invalid=true]")
    assert marked.get_attribute("aria-describedby") == "planner-error"
    assert opened.locator("label:has([aria-invalid=true]) + #planner-error").inner_text() == verdict


def test_a_field_is_marked_only_while_it_is_wrong(opened):
    opened.get_by_label("Devices", exact=True).fill("12")
    assert opened.locator("form.planner [aria-invalid=true]").get_attribute("name") == "num_devices"
    opened.get_by_label("Tensor parallel").fill("8")
    assert opened.locator("form.planner [aria-invalid=true]").get_attribute("name") == "tp_size"
    opened.get_by_label("Devices", exact=True).fill("16")
    assert opened.locator("form.planner [aria-invalid], #planner-error").count() == 0
    assert not opened.locator(".planner-result").evaluate("result => result.inert")
    assert opened.locator(".planner-verdict").inner_text().startswith("Fits: ")


def test_the_verdict_says_how_long_where_the_plan_fits(opened):
    verdict = opened.locator(".planner-verdict").inner_text()
    assert f"{table(opened, 'step')['total']} a step, {table(opened, 'run')['days']} days." in verdict


def test_without_scripts_the_page_says_where_else_the_answer_is(chromium, tmp_path):
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{planner.planner_html('')}")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert "coursekit plan" in page.locator("noscript").inner_text()
    context.close()


COUNTS = [
    "16M",
    "15.6T",
    "8Ki",
    "4_194_304",
    "4,194,304",
    "2.5e9",
    "1.1k",
    "0.1e1",
    " 7 ",
    ".5k",
    "3.e2",
    "1e3K",
]
NO_COUNTS = [
    "",
    "0",
    "1.5",
    "-3",
    "4 M M",
    "1e-3",
    "0.1",
    "1e1000",
    "eight",
    "1.0005k",
    "NaN",
    "Infinity",
    "1__e",
]


@pytest.mark.parametrize("text", [*COUNTS, *NO_COUNTS])
def test_a_count_is_read_as_on_the_command_line(opened, text):
    opened.get_by_label("Vocabulary").fill(text)
    verdict = opened.locator(".planner-verdict").inner_text()
    try:
        wanted = count(text)
    except InputError:
        assert text in NO_COUNTS
        assert verdict.startswith("Vocabulary: ")
        return
    assert text in COUNTS
    shape = dataclasses.replace(PRESETS["llama3-8b"], vocab_size=wanted)
    assert table(opened, "run")["parameters"] == f"{parameters(shape).total:.2e}".replace("e+", "e").replace(
        "e0", "e"
    )


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3"])
def test_a_published_mixture_is_planned_as_the_command_line_does(opened, name):
    shape, experts = MODELS[name]
    opened.get_by_label("Model").select_option(name)
    chosen = {
        "num_devices": "2048",
        "tp_size": "1",
        "ep_size": "8",
        "num_tokens": "14.8T",
        "grad_accum_steps": "60",
    }
    for field, value in chosen.items():
        opened.locator(f"form.planner [name={field}]").fill(value)
    layout = Layout(dp_size=256, ep_size=8, zero_stage=3, sequence_parallel=True, grad_accum_steps=60)
    options = {"seq_len": 4096, "recipe": "mixed_18", "experts": experts}
    told = table(opened, "memory")
    for part, value in memory(shape, layout, **options).parts.items():
        assert float(told[part.replace("_", " ")].split()[0].replace(",", "")) == pytest.approx(
            value / 2**30, rel=0.006
        )
    assert opened.get_by_label("Experts of a layer").input_value() == str(experts.n_experts)
    assert opened.get_by_label("Key-value rank").input_value() == str(getattr(shape, "kv_rank", 0))
    run = table(opened, "run")
    assert run["tokens of the run"] == "1.48e13"
    assert float(run["parameters that a token uses"]) == pytest.approx(
        {"mixtral-8x7b": 12.9e9, "deepseek-v3": 37.6e9}[name], rel=0.003
    )
    # Back to a dense model: what belongs to experts or latents is out of use, and out of the plan.
    opened.get_by_label("Model").select_option("llama3-8b")
    assert opened.get_by_label("Expert parallel").is_disabled()
    assert opened.get_by_label("Query rank").is_disabled()
    dense = dataclasses.replace(layout, dp_size=2048, ep_size=1)
    wanted = memory(PRESETS["llama3-8b"], dense, seq_len=8192, recipe="mixed_18").total
    assert table(opened, "memory")["total"] == f"{wanted / 2**30:.3g} GiB"


# As the page tells it: model, devices, checkpointing, GiB needed, whether it fits, days for 14.8T tokens.
TOLD = [
    ("deepseek-v3", 512, "none", None, False, None),
    ("deepseek-v3", 512, "full", 53.5, True, 250),
    ("deepseek-v3", 256, "full", 75.5, False, None),
    ("deepseek-v3", 2048, "full", None, True, 70),
    ("mixtral-8x7b", 16, "full", None, True, None),
    ("mixtral-8x7b", 16, "none", None, False, None),
    ("mixtral-8x7b", 32, "none", None, True, None),
]


def test_what_the_page_says_of_deepseek_and_mixtral_is_what_it_answers(opened):
    opened.get_by_label("Tensor parallel").fill("1")
    opened.get_by_label("Tokens of the run").fill("14.8T")
    for model, devices, checkpointing, gib, fits, days in TOLD:
        opened.get_by_label("Model").select_option(model)
        opened.get_by_label("Expert parallel").fill("8")
        opened.get_by_label("Devices", exact=True).fill(str(devices))
        opened.get_by_label("Checkpointing").select_option(checkpointing)
        verdict = opened.locator(".planner-verdict").inner_text()
        assert verdict.startswith("Fits: " if fits else "Does not fit: "), (model, devices, checkpointing)
        assert gib is None or f" {gib} " in verdict
        assert days is None or float(table(opened, "run")["days"]) == pytest.approx(days, rel=0.03)
        assert fits or checkpointing == "full" or "most of it activations" in verdict
    assert 2.664e6 / 2048 / 24 == pytest.approx(54, abs=0.5)


def test_a_number_of_the_model_without_a_field_is_the_same_in_all_of_them():
    # What the page has no field for would be lost with the first number that is changed.
    fields = set(re.findall(r'name="(\w+)"', planner.planner_html("")))
    models = json.loads(re.search(r'id="planner-data">(.*?)</script>', planner.planner_html(""))[1])["models"]
    hidden = {name for model in models.values() for name in model} - fields
    assert hidden == {"has_dropout", "experts_every"}
    assert all(len({model[name] for model in models.values()}) == 1 for name in hidden)
