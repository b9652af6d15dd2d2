"""`coursekit plan` as a person and as a program call it."""

import json

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


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", ["gpt2", "llama3-405b"])
def test_no_line_is_wider_than_the_terminal(name, columns):
    text = run(name, "--devices", "2048" if name != "gpt2" else "1", columns=columns).stdout
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


WRONG = {
    "no model": ([], "no --layers"),
    "two models": (["gpt2", "--config", "x.json"], "two models"),
    "an unknown model": (["gpt9"], "gpt3-175b"),
    "a file that is not there": (["--config", "nowhere.json"], "no such file"),
    "an unknown device": (["gpt2", "--device", "abacus"], "H100 SXM"),
    "a name that two devices have": (["gpt2", "--device", "a100"], "A100 SXM 40GB or A100 SXM 80GB"),
    "nodes that are not full": (["gpt2", "--devices", "12"], "a multiple of 8"),
    "sizes that do not divide": (["gpt2", "--devices", "8", "--tp", "3"], "tp_size=3"),
    "a layout that is impossible": (["gpt2", "--devices", "8", "--tp", "8"], "n_heads"),
    "a batch of part of a sequence": (["gpt2", "--batch-tokens", "1000"], "multiple of 1024"),
    "an unknown recipe": (["gpt2", "--recipe", "int1"], "mixed_16"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_question_is_answered_with_what_is_wrong(arguments, said):
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
