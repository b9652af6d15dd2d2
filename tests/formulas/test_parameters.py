"""Parameters of ranks against the whole: whatever the layout, nothing is lost and nothing counted twice."""

from hypothesis import given
from hypothesis import strategies as st

from coursekit.formulas.parameters import parameters_on_rank
from coursekit.formulas.total import total

SHAPE = {
    "vocab_size": 96,
    "max_seq_len": 16,
    "d_model": 24,
    "n_heads": 12,
    "n_kv_heads": 12,
    "d_ff": 36,
    "tie_embeddings": False,
    "experts_every": 1,
    "expert_d_ff": 12,
    "n_shared_experts": 1,
    **dict.fromkeys(("q_rank", "kv_rank", "nope_dim", "rope_dim", "v_dim"), 0),
}
ALONE = {"ep_size": 1, "tp_size": 1, "pp_size": 1, "stage": 0}


@given(
    n_layers=st.integers(1, 30),
    pp_size=st.integers(1, 6),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    activation=st.sampled_from(["gelu", "swiglu"]),
    position=st.sampled_from(["learned", "rope"]),
    bias=st.booleans(),
    n_experts=st.sampled_from([0, 4]),
    first_dense_layers=st.integers(0, 4),
)
def test_the_stages_of_a_pipeline_hold_the_model_once(pp_size, n_layers, **options):
    pp_size = min(pp_size, n_layers)
    known = {**SHAPE, "n_layers": n_layers, **options}
    whole = total(parameters_on_rank(**known, **ALONE))
    stages = [
        total(parameters_on_rank(**known, **{**ALONE, "pp_size": pp_size, "stage": stage}))
        for stage in range(pp_size)
    ]
    assert sum(stages) == whole


@given(tp_size=st.sampled_from([2, 3, 4, 6]), activation=st.sampled_from(["gelu", "swiglu"]))
def test_tensor_parallel_ranks_hold_the_matrices_once_and_the_rest_each(tp_size, activation):
    known = {
        **SHAPE,
        "n_layers": 3,
        "first_dense_layers": 0,
        "norm": "layernorm",
        "activation": activation,
        "position": "learned",
    }
    known |= {"bias": True, "n_experts": 0}
    whole = total(parameters_on_rank(**known, **ALONE))
    part = total(parameters_on_rank(**known, **{**ALONE, "tp_size": tp_size}))
    d = SHAPE["d_model"]
    # Two norms a layer and one more, two row-parallel biases a layer, and the positions.
    each = (2 * 3 + 1) * 2 * d + 3 * 2 * d + SHAPE["max_seq_len"] * d
    assert tp_size * part == whole + (tp_size - 1) * each


def test_a_vocabulary_that_does_not_divide_is_padded():
    known = {
        **SHAPE,
        "vocab_size": 97,
        "n_layers": 1,
        "first_dense_layers": 0,
        "norm": "rmsnorm",
        "activation": "gelu",
    }
    known |= {"position": "rope", "bias": False, "n_experts": 0}
    assert parameters_on_rank(**known, **{**ALONE, "tp_size": 4})["head"] == 25 * SHAPE["d_model"]
