"""`coursekit plan` as a person and as a program call it."""

import json
import re

import pytest
from typer.testing import CliRunner

from coursekit.cli import app
from coursekit.errors import InputError


def run(*arguments, columns=80):
    return CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": str(columns)})


def answer(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


# Parameters, tokens, operations (6 N D). Brown et al. 2020, table D.1; Grattafiori et al. 2024: 3.8e25 on
# 15.6 T tokens for 405B, the shapes of table 3 for the others, which saw "over 15 T" (model card).
PUBLISHED = {
    "gpt3-175b": (174.6e9, 300e9, 3.14e23),
    "llama3-8b": (8.03e9, 15e12, 7.2e23),
    "llama3-70b": (70.6e9, 15e12, 6.3e24),
    "llama3-405b": (405e9, 15.6e12, 3.8e25),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_have_their_published_sizes_and_operations(name):
    parameters, tokens, flops = PUBLISHED[name]
    told = answer(name, "--devices", "1024", "--tokens", str(tokens), "--recipe", "mixed_18")
    assert told["model"]["parameters"]["total"] == pytest.approx(parameters, rel=0.005)
    assert told["training"]["flops_6nd"] == pytest.approx(flops, rel=0.011)


def test_llama_405bs_gpu_hours_come_out():
    # 30.84 million H100 hours: model card of Llama 3.1. The whole run is taken at one rate here.
    options = [
        "--devices",
        "16384",
        "--tokens",
        "15.6e12",
        "--batch-tokens",
        str(2**24),
        "--recipe",
        "mixed_18",
    ]
    told = answer("llama3-405b", *options, "--tp", "8", "--pp", "16")
    hours = told["training"]["seconds"] / 3600 * 16384
    assert hours == pytest.approx(30.84e6, rel=0.25)  # full checkpointing, which the paper did without
    assert told["layouts"][0]["layout"]["checkpointing"] == "full"


def test_gpt3s_days_on_1024_a100_come_out():
    # Narayanan et al. 2021, section 5.1: 34 days for 300 B tokens, 140 teraFLOP/s a GPU with recomputing.
    options = ["--device", "a100 sxm 80gb", "--devices", "1024", "--network", "200", "--tokens", "300e9"]
    mesh = [
        "--tp",
        "8",
        "--pp",
        "8",
        "--batch-tokens",
        str(1536 * 2048),
        "--checkpointing",
        "full",
        "--zero",
        "0",
    ]
    days = answer("gpt3-175b", *options, *mesh)["training"]["seconds"] / 86400
    assert days == pytest.approx(34, rel=0.12)


# Layouts of their papers, by names that people type; one that does not fit, and one of few devices.
QUESTIONS = {
    "GPT-2": [],
    "gpt3": ["--devices", "1024", "--device", "a100 sxm 80gb", "--network", "200"],
    "meta-llama/Llama-3-8B": ["--devices", "8"],
    "llama3_70b": ["--devices", "2048"],
    "llama3-405b": ["--devices", "16_384", "--batch-tokens", "16M", "--tokens", "15.6T"],
    "mixtral-8x7b": ["--devices", "64", "--batch-tokens", "1M", "--ep", "8"],
    "deepseek": ["--devices", "2048", "--recipe", "mixed_18"],
}


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_line_is_wider_than_the_terminal(name, columns):
    text = run(name, *QUESTIONS[name], columns=columns).stdout
    assert max(map(len, text.splitlines())) <= columns
    assert "memory of a device: " in text
    assert "an optimizer step, MFU" in text


def test_the_bars_are_as_long_as_their_shares():
    text = run("llama3-8b", "--devices", "8", "--recipe", "mixed_18").stdout
    memory = answer("llama3-8b", "--devices", "8", "--recipe", "mixed_18")["layouts"][0]["memory_bytes"]
    room = 80 - 16 - 9 - 3
    for line in text.splitlines():
        name = line[:16].strip().replace(" ", "_")
        if name in memory and name != "total":
            wanted = memory[name] / (0.9 * 80 * 2**30) * room
            assert abs(line.count("█") + line.count("#") - wanted) <= 1


def test_what_fits_nowhere_says_so_and_ends_with_status_1():
    result = run("llama3-70b")
    assert result.exit_code == 1
    assert "DOES NOT FIT" in result.stdout
    assert run("gpt2").exit_code == 0


def test_other_layouts_come_with_the_reason_why_they_lose():
    text = run("llama3-8b", "--devices", "8", "--top", "2", columns=200).stdout
    _, others = text.split("why they lose\n")
    assert len([line for line in others.splitlines() if not line.startswith("    ")]) == 2
    assert "× the time" in others


def test_a_model_by_numbers_equals_the_preset():
    numbers = ["--layers", "12", "--d-model", "768", "--heads", "12", "--vocab", "50257", "--seq-len", "1024"]
    assert answer(*numbers) == answer("gpt2")
    llama = ["--layers", "32", "--d-model", "4096", "--heads", "32", "--kv-heads", "8", "--d-ff", "14336"]
    by_numbers = answer(*llama, "--vocab", "128256", "--llama", "--devices", "8", "--seq-len", "8192")
    assert by_numbers["model"]["parameters"] == answer("llama3-8b", "--devices", "8")["model"]["parameters"]


def test_a_model_by_file_equals_the_preset(tmp_path):
    file = tmp_path / "config.json"
    names = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    others = {"intermediate_size": 14336, "vocab_size": 128_256, "max_position_embeddings": 8192}
    file.write_text(json.dumps({"model_type": "llama", "rope_theta": 500_000.0, **names, **others}))
    assert answer("--config", str(file), "--devices", "8") == answer("llama3-8b", "--devices", "8")


def test_decided_sizes_are_kept():
    layout = answer("llama3-8b", "--devices", "8", "--tp", "4", "--zero", "1")["layouts"][0]["layout"]
    assert (layout["tp_size"], layout["zero_stage"]) == (4, 1)


def test_a_mixture_by_numbers_or_by_file_equals_the_named_one(tmp_path):
    named = answer("mixtral-8x7b", "--devices", "8")
    assert named["model"]["parameters"]["total"] == pytest.approx(46.7e9, rel=0.001)
    assert named["model"]["active_parameters"] == pytest.approx(12.9e9, rel=0.002)
    sizes = ["--layers", "32", "--d-model", "4096", "--heads", "32", "--kv-heads", "8", "--d-ff", "14336"]
    numbers = [*sizes, "--vocab", "32000", "--llama", "--seq-len", "4096", "--experts", "8", "--top-k", "2"]
    assert answer(*numbers, "--devices", "8")["layouts"] == named["layouts"]
    file = tmp_path / "config.json"
    names = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32_000}
    names |= {"num_key_value_heads": 8, "intermediate_size": 14_336, "max_position_embeddings": 4096}
    names |= {"num_local_experts": 8, "num_experts_per_tok": 2, "model_type": "mixtral"}
    file.write_text(json.dumps(names))
    assert answer("--config", str(file), "--devices", "8") == named
    file.write_text(json.dumps({**names, "tie_word_embeddings": True}))
    tied = answer("--config", str(file), "--devices", "8")["model"]["parameters"]
    assert named["model"]["parameters"]["total"] - tied["total"] == 32_000 * 4096


def test_deepseek_v3s_own_file_is_read(tmp_path):
    # The fields of deepseek-ai/DeepSeek-V3's config.json that say how large it is.
    names = {"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "vocab_size": 129_280}
    names |= {"num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18_432}
    names |= {"max_position_embeddings": 163_840, "moe_intermediate_size": 2048, "n_routed_experts": 256}
    names |= {"n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3}
    names |= {"moe_layer_freq": 1, "q_lora_rank": 1536, "kv_lora_rank": 512, "v_head_dim": 128}
    names |= {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(names))
    told = answer("--config", str(file), "--seq-len", "4096", "--devices", "256")
    assert told["model"]["parameters"] == answer("deepseek-v3", "--devices", "256")["model"]["parameters"]
    assert told["model"]["experts"]["n_shared"] == 1
    assert told["model"]["shape"]["kv_rank"] == 512


def test_the_run_of_a_mixture_counts_the_parameters_that_a_token_uses():
    told = answer("deepseek-v3", "--devices", "2048", "--tokens", "14.8T")
    # 36.6 of 671 billion, and an embedding of 0.9 that the report leaves out and 6 N D does not.
    assert told["training"]["flops_6nd"] == pytest.approx(6 * 37.55e9 * 14.8e12, rel=0.001)


def test_experts_that_are_decided_are_kept():
    layout = answer("mixtral-8x7b", "--devices", "64", "--ep", "8", "--pp", "4")["layouts"][0]["layout"]
    assert (layout["ep_size"], layout["pp_size"]) == (8, 4)
    assert "ep 8" in run("mixtral-8x7b", "--devices", "64", "--ep", "8").stdout


@pytest.mark.parametrize("asked", ["4_194_304", "4,194,304", "4194304", "4Mi", "4096Ki"])
def test_a_count_is_read_as_people_write_it(asked):
    assert answer("gpt2", "--batch-tokens", asked)["training"]["batch_tokens"] == 2**22
    assert answer("gpt2", "--tokens", "2.5e9")["training"]["tokens"] == 2_500_000_000


@pytest.mark.parametrize("asked", ["16e6", "16M", "16_000_000"])
def test_a_round_batch_is_taken_for_the_nearest_that_ranks_can_divide_and_that_is_said(asked):
    result = run("llama3-8b", "--devices", "128", "--batch-tokens", asked, columns=200)
    told = " ".join(result.stdout.split())
    assert "16.8 M tokens, for the 16,000,000 asked for, in 2,048 sequences of 8,192" in told
    assert "asked for" not in run("llama3-8b", "--devices", "128", "--batch-tokens", str(2**24)).stdout


def test_checkpointing_comes_with_the_reason_for_it():
    # The paper did without it: see tests/plan/test_published_models.py for the bytes that it saved elsewhere.
    options = [
        "--devices",
        "16384",
        "--batch-tokens",
        "16M",
        "--recipe",
        "mixed_18",
        "--tp",
        "8",
        "--pp",
        "16",
    ]
    text = run("llama3-405b", *options, columns=200).stdout
    assert "full checkpointing" in text
    needed = re.search(r"without checkpointing it needs ([\d.]+) GiB of a device", text)
    assert 72 < float(needed[1]) < 100
    assert "without checkpointing" not in run("gpt2").stdout


def test_one_of_a_thing_is_not_many_and_many_days_are_years():
    text = run("gpt3").stdout
    assert "on 1 device," in text
    assert "1 micro-batch of" in run("gpt2", "--batch-tokens", "1024").stdout
    assert re.search(r"280\.\d years", text)


WRONG = {
    "no model": ([], "no --layers"),
    "two models": (["gpt2", "--config", "x.json"], "two models"),
    "an unknown model": (["gpt9"], "gpt3-175b"),
    "a model that is nearly known": (["lama3-8b"], "did you mean llama3-8b?"),
    "a name that two models have": (["mixtral"], "mixtral-8x7b or mixtral-8x22b"),
    "a way of numbers beside a name": (["gpt2", "--llama"], "--llama has no effect"),
    "experts of a model that has none": (["gpt2", "--top-k", "2"], "--experts as well"),
    "parts of experts of a model that has none": (["gpt2", "--devices", "2", "--ep", "2"], "no experts"),
    "more positions than were learned": (["gpt2", "--seq-len", "4096"], "--seq-len up to 1024"),
    "no network": (["gpt2", "--network", "0"], "wrong --network"),
    "a network that is no number": (["gpt2", "--network", "nan"], "wrong --network"),
    "a batch of less than a sequence": (["gpt2", "--batch-tokens", "100"], "--batch-tokens 1024"),
    "a file that is not there": (["--config", "nowhere.json"], "no such file"),
    "an unknown device": (["gpt2", "--device", "abacus"], "H100 SXM"),
    "a name that two devices have": (["gpt2", "--device", "a100"], "A100 SXM 40GB or A100 SXM 80GB"),
    "nodes that are not full": (["gpt2", "--devices", "12"], "one of 1, 2, 3, 4, 6, 12"),
    "sizes that do not divide": (["gpt2", "--devices", "8", "--tp", "3"], "tp_size=3"),
    "a layout that is impossible": (["gpt2", "--devices", "8", "--tp", "8"], "n_heads"),
    "a batch of part of a sequence": (["gpt2", "--batch-tokens", "1600"], "multiple of 1024"),
    "an unknown recipe": (["gpt2", "--recipe", "int1"], "mixed_16"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_question_is_answered_with_what_is_wrong(arguments, said):
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)


NO_COUNTS = {
    "nothing of it": (["--devices", "0"], "--devices"),
    "less than nothing": (["--tokens=-5"], "--tokens"),
    "half of one": (["--tp", "1.5"], "--tp"),
    "a word": (["--batch-tokens", "many"], "4e6 or 4M"),
    "a number without end": (["--tokens", "1e9999"], "--tokens"),
    "a length that two numbers have": (["--seq-len", "8K"], "8192 or 8000"),
    "fewer than no layouts": (["--top=-1"], "--top"),
}


@pytest.mark.parametrize(("arguments", "said"), NO_COUNTS.values(), ids=NO_COUNTS)
def test_a_number_that_is_no_count_is_refused_with_its_option(arguments, said):
    result = run("gpt2", *arguments)
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", "").split())
    assert said in told
    assert arguments[0].partition("=")[0] in told


WRONG_FILES = {
    "a width in quotes": ({"model_type": "llama", "hidden_size": "4096"}, "wrong hidden_size"),
    "half a layer": ({"vocab_size": 9, "max_seq_len": 8, "n_layers": 1.5}, "wrong n_layers"),
    "no experts": ({"model_type": "mixtral", "hidden_size": 4096}, "num_local_experts"),
    "experts in quotes": (
        {"model_type": "mixtral", "num_local_experts": "8", "num_experts_per_tok": 2},
        "wrong num_local_experts",
    ),
    "no object": ([1], "expected a JSON object"),
    "another kind": ({"model_type": "qwen2"}, "give the numbers one by one"),
}


@pytest.mark.parametrize(("values", "said"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_describes_no_model_is_answered_with_what_is_wrong(values, said, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    result = run("--config", str(file))
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
