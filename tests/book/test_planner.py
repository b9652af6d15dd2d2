"""The planner's page: its results against the package, on many random questions."""

import json
import math
import random

import pytest
from course_book import planner

from coursekit.cli.plan_models import planned_models
from coursekit.errors import InputError
from coursekit.formulas.parameters import parameters_used
from coursekit.models.config import GPTConfig
from coursekit.models.latent import LatentConfig
from coursekit.plan.bytes_sent import communication
from coursekit.plan.cluster import Cluster
from coursekit.plan.data_sheets import DEVICES
from coursekit.plan.layout import ExpertLayers, Layout, check_layout
from coursekit.plan.memory_per_device import known_values, memory
from coursekit.plan.operations import flops_per_token
from coursekit.plan.parameter_count import parameters
from coursekit.plan.recipes import RECIPES
from coursekit.plan.step_time import step_seconds
from coursekit.plan.storage import cache_bytes_per_token

pytestmark = pytest.mark.browser


MODELS = planned_models()


def random_shape(draw):
    heads = draw.choice([4, 6, 8, 16, 40])
    latent = draw.random() < 0.4
    numbers = {name: draw.choice([16, 64, 128]) for name in ("kv_rank", "nope_dim", "rope_dim", "v_dim")}
    numbers["q_rank"] = draw.choice([0, 192])
    return (LatentConfig if latent else GPTConfig)(
        draw.randint(100, 200_000), draw.choice([128, 1024, 8192]),
        d_model=heads * draw.choice([32, 64, 128]),
        n_layers=draw.randint(1, 130), n_heads=heads, n_kv_heads=draw.choice([heads, heads // 2, 2, 1]),
        d_ff=draw.choice([None, 64, 4096, 1000]), norm=draw.choice(["layernorm", "rmsnorm"]),
        activation=draw.choice(["gelu", "swiglu"]), position=draw.choice(["learned", "rope"]),
        bias=draw.random() < 0.5, tie_embeddings=draw.random() < 0.5, **(numbers if latent else {}),
    )  # fmt: skip


def random_experts(draw):
    n_experts = draw.choice([1, 6, 8, 64, 256])
    return ExpertLayers(
        n_experts, draw.randint(1, min(8, n_experts)), every=draw.choice([1, 1, 1, 2]),
        d_ff=draw.choice([None, 100, 1408, 2048]), n_shared=draw.choice([0, 0, 1, 2]),
        first_dense=draw.choice([0, 0, 1, 3, 20]),
    )  # fmt: skip


def random_question(draw):
    """Return shape, experts, layout, cluster, sequence length and recipe, which need not go together."""
    if draw.random() < 0.5:
        shape, experts = draw.choice(list(MODELS.values()))
    else:
        shape, experts = random_shape(draw), draw.choice([None, random_experts(draw)])
    pp_size = draw.choice([1, 1, 2, 3, 4, 16])
    stages = draw.choice([1, 2, 4]) if pp_size > 1 else 1
    layout = Layout(
        dp_size=draw.choice([1, 2, 3, 8, 128]), tp_size=draw.choice([1, 2, 3, 4, 8, 16]), pp_size=pp_size,
        cp_size=draw.choice([1, 1, 2, 4]), ep_size=draw.choice([1, 2, 2, 4, 8] if experts else [1] * 9 + [2]),
        zero_stage=draw.randint(0, 3),
        sequence_parallel=draw.random() < 0.5, micro_batch_size=draw.randint(1, 4),
        grad_accum_steps=draw.choice([pp_size * draw.randint(1, 16), draw.randint(1, 64)]),
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
    return shape, experts, layout, cluster, seq_len, draw.choice(list(RECIPES))


# What the page calls the number that an error of `check_layout` begins with.
NAMES = {
    "fewer layers": "n_layers",
    "an interleaved": "grad_accum_steps",
    "the experts'": "expert_d_ff",
    "the model": "ep_size",
}


def in_python_planned(shape, experts, layout, cluster, seq_len, recipe):
    """Return what the package says, in the form of the page's results; or what does not divide."""
    try:
        check_layout(shape, layout, experts, seq_len)
    except InputError as error:
        first, second, *_ = str(error).split()
        return NAMES.get(f"{first} {second}", first)
    options = {"seq_len": seq_len, "recipe": recipe, "experts": experts}
    sent = communication(shape, layout, **options)
    params = parameters(shape, experts=experts)
    used = parameters_used(
        dict(params.parts), experts.n_experts if experts else 0, experts.top_k if experts else 0
    )
    return {
        "memory": dict(memory(shape, layout, **options).parts),
        "step": dict(step_seconds(shape, layout, cluster, **options).parts),
        "sent": dict(sent.parts),
        "parameters": params.total,
        "used": used,
        "tokens": layout.global_batch_size * seq_len,
        "cache": cache_bytes_per_token(shape),
        "flops": flops_per_token(shape, seq_len=seq_len, experts=experts).total,
    }


def in_the_browser_planned(chromium, questions, script=None):
    page = chromium.new_page()
    page.goto("about:blank")
    page.add_script_tag(content=script or planner.script())
    values = [
        known_values(shape, layout, experts, recipe) | cluster.scalars() | {"seq_len": seq_len}
        for shape, experts, layout, cluster, seq_len, recipe in questions
    ]
    results = page.evaluate(
        """(text) => JSON.stringify(JSON.parse(text).map((values) => {
            const number = coursekitPlan.call("undivided", values);
            if (number) return number;
            const { memory, step, sent, run } = coursekitPlanner.plan(values);
            const sends = new Map([...sent].filter(([, bytes]) => bytes !== 0));
            const [parameters, flops, tokens, cache] = ["parameters", "FLOPs of a token", "tokens of a step",
                "bytes of a token in a KV cache of 16 bits"].map((name) => run.get(name));
            const used = run.get("parameters that a token uses") ?? parameters;
            const [m, s, b] = [memory, step, sends].map(Object.fromEntries);
            return { memory: m, step: s, sent: b, parameters, used, tokens, cache, flops };
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
    planned = [(q, want) for q, want in zip(questions, wanted, strict=True) if isinstance(want, dict)]
    assert sum(q[1] is None for q, _ in planned) > 50
    assert sum("expert" in want["sent"] for _, want in planned) > 20
    assert sum(isinstance(q[0], LatentConfig) for q, _ in planned) > 30
    assert {want for want in wanted if isinstance(want, str)} == {
        *("n_layers", "n_heads", "n_kv_heads", "d_ff", "seq_len"),
        *("n_experts", "ep_size", "expert_d_ff", "grad_accum_steps"),
    }
    results = in_the_browser_planned(chromium, questions)
    wrong = [(q, g, w) for q, g, w in zip(questions, results, wanted, strict=True) if not agree(g, w)]
    assert wrong == []


@pytest.mark.parametrize(
    "planted",
    [
        "py.mul(4, num_layers)",
        "py.floordiv(n_layers, pp_size)",
        "py.div(1, shard_size)",
        "py.floordiv(n_experts, ep_size)",
        "py.mul(top_k, message)",
        "py.div(top_k, n_experts)",
        "py.add(nope_dim, v_dim)",
        "py.add(kv_rank, rope_dim)",
    ],
)
def test_a_planted_difference_in_a_formula_is_seen_by_the_plans(chromium, planted):
    script = planner.script()
    assert planted in script
    draw = random.Random(7)
    questions = [random_question(draw) for _ in range(100)]
    results = in_the_browser_planned(chromium, questions, script.replace(planted, f"py.add({planted}, 1)"))
    wanted = [in_python_planned(*question) for question in questions]
    assert not all(map(agree, results, wanted))
