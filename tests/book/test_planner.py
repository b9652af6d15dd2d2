"""The planner's page: its results against the package, on many random questions, and the form in use."""

import json
import math
import random

import pytest
from course_book import planner

from coursekit.errors import InputError
from coursekit.models.config import GPTConfig
from coursekit.models.presets import PRESETS
from coursekit.plan.bytes_sent import communication
from coursekit.plan.cluster import Cluster
from coursekit.plan.data_sheets import DEVICES
from coursekit.plan.layout import Layout, check_layout
from coursekit.plan.memory_per_device import known_values, memory
from coursekit.plan.operations import flops_per_token
from coursekit.plan.parameter_count import parameters
from coursekit.plan.recipes import RECIPES
from coursekit.plan.step_time import step_seconds

pytestmark = pytest.mark.browser


def random_question(draw):
    """Return a shape, a layout, a cluster, a sequence length and a recipe, which need not go together."""
    if draw.random() < 0.5:
        shape = draw.choice(list(PRESETS.values()))
    else:
        heads = draw.choice([4, 6, 8, 16, 40])
        shape = GPTConfig(
            draw.randint(100, 200_000), draw.choice([128, 1024, 8192]),
            d_model=heads * draw.choice([32, 64, 128]),
            n_layers=draw.randint(1, 130), n_heads=heads, n_kv_heads=draw.choice([heads, heads // 2, 2, 1]),
            d_ff=draw.choice([None, 64, 4096, 1000]), norm=draw.choice(["layernorm", "rmsnorm"]),
            activation=draw.choice(["gelu", "swiglu"]), position=draw.choice(["learned", "rope"]),
            bias=draw.random() < 0.5, tie_embeddings=draw.random() < 0.5,
        )  # fmt: skip
    pp_size = draw.choice([1, 1, 2, 3, 4, 16])
    stages = draw.choice([1, 2, 4]) if pp_size > 1 else 1
    layout = Layout(
        dp_size=draw.choice([1, 2, 3, 8, 128]), tp_size=draw.choice([1, 2, 3, 4, 8, 16]), pp_size=pp_size,
        cp_size=draw.choice([1, 1, 2, 4]), zero_stage=draw.randint(0, 3),
        sequence_parallel=draw.random() < 0.5, micro_batch_size=draw.randint(1, 4),
        grad_accum_steps=draw.randint(1, 64),
        checkpointing=draw.choice(["none", "selective", "full"]),
        attention=draw.choice(["flash", "materialized"]), stages_per_rank=stages,
        schedule="interleaved" if stages > 1 else draw.choice(["1f1b", "gpipe"]),
    )  # fmt: skip
    per_node = draw.choice([n for n in (1, 2, 4, 8, 16) if layout.world_size % n == 0])
    cluster = Cluster(
        layout.world_size // per_node, per_node, device=draw.choice(list(DEVICES)),
        inter_bytes_per_second=draw.choice([1e9, 12.5e9, 50e9]),
    )  # fmt: skip
    seq_len = draw.choice([128, 512, 1024, 8192, 8190, 131_072])
    return shape, layout, cluster, seq_len, draw.choice(list(RECIPES))


def in_python_planned(shape, layout, cluster, seq_len, recipe):
    """Return what the package says, in the form of the page's results; or what does not divide."""
    try:
        check_layout(shape, layout, None, seq_len)
    except InputError as error:
        return "n_layers" if "layers" in str(error) else str(error).split()[0]
    options = {"seq_len": seq_len, "recipe": recipe}
    sent = communication(shape, layout, **options)
    return {
        "memory": dict(memory(shape, layout, **options).parts),
        "step": dict(step_seconds(shape, layout, cluster, **options).parts),
        "sent": dict(sent.parts),
        "parameters": parameters(shape).total,
        "flops": flops_per_token(shape, seq_len=seq_len).total,
    }


def in_the_browser_planned(chromium, questions, script=None):
    page = chromium.new_page()
    page.goto("about:blank")
    page.add_script_tag(content=script or planner.script())
    values = [
        known_values(shape, layout, None, recipe) | cluster.scalars() | {"seq_len": seq_len}
        for shape, layout, cluster, seq_len, recipe in questions
    ]
    results = page.evaluate(
        """(text) => JSON.stringify(JSON.parse(text).map((values) => {
            const number = coursekitPlan.call("undivided", values);
            if (number) return number;
            const { memory, step, sent, run } = coursekitPlanner.plan(values);
            const sends = new Map([...sent].filter(([, bytes]) => bytes !== 0));
            const [parameters, flops] = ["parameters", "FLOPs of a token"].map((name) => run.get(name));
            const [m, s, b] = [memory, step, sends].map(Object.fromEntries);
            return { memory: m, step: s, sent: b, parameters, flops };
        }))""",
        json.dumps(values),
    )
    page.close()
    return json.loads(results)


def agree(got, want):
    """Whether two plans agree: names exactly, numbers to 12 digits."""
    if isinstance(want, dict):
        return (
            isinstance(got, dict) and got.keys() == want.keys() and all(agree(got[k], want[k]) for k in want)
        )
    return got == want if isinstance(want, str) else math.isclose(got, want, rel_tol=1e-12, abs_tol=1e-12)


def test_the_page_plans_as_the_package_does(chromium):
    draw = random.Random(7)
    questions = [random_question(draw) for _ in range(500)]
    wanted = [in_python_planned(*question) for question in questions]
    assert sum(isinstance(want, dict) for want in wanted) > 150
    assert {want for want in wanted if isinstance(want, str)} >= {
        "n_layers",
        "n_heads",
        "n_kv_heads",
        "d_ff",
        "seq_len",
    }
    results = in_the_browser_planned(chromium, questions)
    wrong = [(q, g, w) for q, g, w in zip(questions, results, wanted, strict=True) if not agree(g, w)]
    assert wrong == []


@pytest.mark.parametrize(
    "planted", ["py.mul(4, num_layers)", "py.floordiv(n_layers, pp_size)", "py.div(1, shard_size)"]
)
def test_a_planted_difference_in_a_formula_is_seen_by_the_plans(chromium, planted):
    script = planner.script()
    assert planted in script
    draw = random.Random(7)
    questions = [random_question(draw) for _ in range(60)]
    results = in_the_browser_planned(chromium, questions, script.replace(planted, f"py.add({planted}, 1)"))
    wanted = [in_python_planned(*question) for question in questions]
    assert not all(map(agree, results, wanted))


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
    for field in opened.locator("form.planner input, form.planner select").all():
        assert field.evaluate("field => field.labels.length") == 1
    opened.get_by_label("Tensor parallel").focus()
    opened.keyboard.press("ArrowUp")
    assert "no multiple of 3" in opened.locator(".planner-verdict").inner_text()
    opened.keyboard.press("ArrowUp")
    assert "Data parallel 2," in opened.locator(".planner-verdict").inner_text()


def test_a_preset_fills_the_numbers_and_a_number_leaves_the_preset(opened):
    opened.get_by_label("Model").select_option("gpt3-175b")
    assert opened.get_by_label("Width", exact=True).input_value() == "12288"
    assert opened.locator(".planner-verdict").inner_text().startswith("Does not fit: ")
    assert table(opened, "run")["parameters"] == "1.75e11"
    opened.get_by_label("Layers").fill("2")
    assert opened.get_by_label("Model").input_value() == ""
    assert table(opened, "run")["parameters"] != "1.75e11"


def test_impossible_choices_are_answered_in_a_sentence(opened):
    opened.get_by_label("Layers").fill("")
    assert opened.locator(".planner-verdict").inner_text().startswith("Layers: ")
    opened.get_by_label("Layers").fill("32")
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
        (field.select_option if name == "position" else field.fill)(value)
    assert opened.locator(".planner-verdict").inner_text().startswith(answer)
    assert "planner-wrong" in opened.locator(".planner-result").get_attribute("class")


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
