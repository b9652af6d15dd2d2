"""Shapes from files."""

import dataclasses
import json

import pytest

from coursekit.errors import InputError
from coursekit.models.config_file import read_config
from coursekit.models.presets import preset

LLAMA = {
    "model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096, "hidden_size": 4096,
    "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
}


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file and gives its path."""

    def write(values):
        path = tmp_path / "config.json"
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return write


def test_a_shapes_own_fields_come_back(file):
    shape = preset("llama3-70b")
    assert read_config(file(dataclasses.asdict(shape))) == shape


def test_hugging_faces_files_give_the_presets(file):
    assert read_config(file(LLAMA)) == preset("llama2-7b")
    assert read_config(file({**GPT2, "n_inner": None, "activation_function": "gelu_new"})) == preset("gpt2")
    grouped = read_config(file({**LLAMA, "model_type": "mistral", "num_key_value_heads": 8, "head_dim": 128}))
    assert (grouped.n_kv_heads, grouped.tie_embeddings) == (8, False)


WRONG = {
    "no JSON": ("{", "is no JSON"),
    "a list": ([1], "a JSON object"),
    "an unknown field": ({"layers": 3}, "layers"),
    "half a shape": ({"d_model": 64}, "n_layers"),
    "half a file of theirs": ({"model_type": "llama", "hidden_size": 64}, "num_hidden_layers"),
    "another kind of model": ({**LLAMA, "model_type": "mixtral"}, "gpt2 or llama or mistral"),
    "heads of another width": ({**LLAMA, "head_dim": 64}, "expected 128, got 64"),
}


@pytest.mark.parametrize(("values", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_shape_is_refused(file, values, said):
    with pytest.raises(InputError, match=said):
        read_config(file(values))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_config(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("field", "value"), [("num_hidden_layers", 2.5), ("hidden_size", "64"), ("n_head", 0)]
)
def test_what_counts_something_is_a_whole_number(file, field, value):
    base = GPT2 if field in GPT2 else LLAMA
    with pytest.raises(InputError, match=f"wrong {field}"):
        read_config(file({**base, field: value}))
    assert read_config(file({**LLAMA, "rope_theta": 5e5, "tie_word_embeddings": True})).tie_embeddings
