"""Checkpointed layers against the same layers without: gradients to the last bit, bytes by hand count."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.train import (
    MATMUL_OPS,
    accumulate_gradients,
    autocast,
    checkpoint_layers,
    measure_live_tensors,
    measure_saved_tensors,
    recompute_naive,
    record_op_dtypes,
)

N_LAYERS, ROWS, D_MODEL, D_FF = 4, 8, 6, 24
INPUT_BYTES, HIDDEN_BYTES = ROWS * D_MODEL * 8, ROWS * D_FF * 8  # float64


class Block(nn.Module):
    """A feed-forward block, with a keyword argument, and dropout where it is asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.up, self.down = nn.Linear(D_MODEL, D_FF), nn.Linear(D_FF, D_MODEL)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x, *, debug=None):
        out = self.down(self.dropout(nn.functional.gelu(self.up(x))))
        return out if debug is None else out * debug


def model_of(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(Block(dropout) for _ in range(N_LAYERS))).double()


def inputs_of(rows=ROWS):
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(model, run=None, seed=7):
    """Return all gradients of one pass, the input's included, in one tensor."""
    torch.manual_seed(seed)
    x = inputs_of().requires_grad_()
    (run or model)(x).square().sum().backward()
    return torch.cat([x.grad.flatten(), *(p.grad.flatten() for p in model.parameters())])


def run_naive(model, **options):
    def run(x):
        for layer in model:
            x = recompute_naive(layer, x, **options)
        return x

    return run


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"every": 2}, {"save_ops": MATMUL_OPS}, {"every": 3}])
def test_gradients_are_the_same_to_the_last_bit(options, dropout):
    model = model_of(dropout)
    checkpoint_layers(model, **options)
    assert torch.equal(gradients(model), gradients(model_of(dropout)))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_of_the_naive_version_are_the_same_too(dropout):
    model = model_of(dropout)
    assert torch.equal(gradients(model, run_naive(model)), gradients(model_of(dropout)))


def test_control_dropout_recomputed_from_another_random_state_is_rejected():
    expected = gradients(model_of(0.5))
    model = model_of(0.5)
    naive = gradients(model, run_naive(model, keep_rng=False))
    assert (naive - expected).norm() > 0.1 * expected.norm()
    model = model_of(0.5)
    checkpoint_layers(model, preserve_rng_state=False)
    assert (gradients(model) - expected).norm() > 0.1 * expected.norm()


def test_the_random_state_after_a_step_is_that_of_a_step_without():
    plain, naive, checkpointed = (model_of(0.5) for _ in range(3))
    checkpoint_layers(checkpointed)
    states = []
    for model, run in ((plain, None), (naive, run_naive(naive)), (checkpointed, None)):
        gradients(model, run)
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def saved_after_forward(**options):
    model, x = model_of(), inputs_of()
    if options:
        checkpoint_layers(model, **options)
    with measure_saved_tensors(exclude=model.parameters()) as saved:
        loss = model(x).square().sum()
    assert loss.requires_grad
    return saved.live_bytes


def test_saved_bytes_are_those_of_the_inputs_alone():
    output_bytes = INPUT_BYTES  # kept by the loss
    inside_bytes = 2 * HIDDEN_BYTES  # GELU keeps its input, and the layer after it its output
    assert saved_after_forward() == N_LAYERS * (INPUT_BYTES + inside_bytes) + output_bytes
    assert saved_after_forward(every=1) == N_LAYERS * INPUT_BYTES + output_bytes
    assert (
        saved_after_forward(every=2) == N_LAYERS * INPUT_BYTES + N_LAYERS // 2 * inside_bytes + output_bytes
    )


def saved_naive():
    model, x = model_of(), inputs_of().requires_grad_()
    with measure_saved_tensors(exclude=[*model.parameters(), x]) as saved:
        loss = run_naive(model)(x).square().sum()
    assert loss.requires_grad
    return saved.live_bytes


def test_the_naive_version_saves_the_same_bytes():
    assert saved_naive() + INPUT_BYTES == saved_after_forward(every=1)


def live_and_peak(**options):
    """Return the bytes alive after forward, without the model's input, and the most until backward ends."""
    model, x = model_of(), inputs_of()
    if options:
        checkpoint_layers(model, **options)
    with measure_live_tensors() as live:
        loss = model(x).square().sum()
        after_forward = live.live_bytes - loss.nbytes
        loss.backward()
    return after_forward, live.peak_bytes


def test_selective_checkpointing_keeps_the_products_as_well():
    assert live_and_peak()[0] == N_LAYERS * (2 * HIDDEN_BYTES + INPUT_BYTES)
    assert live_and_peak(every=1)[0] == N_LAYERS * INPUT_BYTES  # each layer's output is the next one's input
    assert live_and_peak(save_ops=MATMUL_OPS)[0] == N_LAYERS * (HIDDEN_BYTES + INPUT_BYTES)


def test_the_peak_of_a_whole_step_falls_too():
    peaks = [live_and_peak(**options)[1] for options in ({}, {"save_ops": MATMUL_OPS}, {"every": 1})]
    assert peaks[0] > peaks[1] > peaks[2]


def num_products(**options):
    """Return the products of the forward pass that one step computes, recomputed ones included."""
    model = model_of()
    if options:
        checkpoint_layers(model, **options)
    with record_op_dtypes() as dtypes:
        gradients(model)
    return dtypes["aten.addmm"].total()


def test_what_is_kept_is_not_computed_again():
    forward = 2 * N_LAYERS
    assert num_products() == num_products(save_ops=MATMUL_OPS) == forward
    # One more a layer and not two: nobody needs the last product's output, so recomputing stops before it.
    assert num_products(every=1) == forward + N_LAYERS
    assert num_products(every=2) == forward + N_LAYERS // 2


def test_nothing_is_recomputed_or_kept_without_grad():
    model = model_of()
    checkpoint_layers(model)
    with torch.no_grad(), record_op_dtypes() as dtypes:
        assert torch.equal(model(inputs_of()), model_of()(inputs_of()))
    assert dtypes["aten.addmm"].total() == 2 * 2 * N_LAYERS


def test_names_states_and_types_stay_what_they_were():
    model, plain = model_of(), model_of()
    checkpoint_layers(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in plain.named_modules()]
    assert all(isinstance(layer, Block) for layer in model)
    model.load_state_dict(model_of(seed=3).state_dict())
    assert torch.equal(gradients(model), gradients(model_of(seed=3)))


def test_it_can_be_undone_by_hand_and_by_with():
    model = model_of()
    checkpoint_layers(model).remove()
    assert [type(layer) for layer in model] == [Block] * N_LAYERS
    assert num_products() == 2 * N_LAYERS
    with checkpoint_layers(model, every=2) as checkpointed:
        assert checkpointed.layers == (model[0], model[2])
        assert type(model[0]) is not Block
    assert [vars(a).keys() for a in model] == [vars(a).keys() for a in model_of()]
    assert [type(layer) for layer in model] == [Block] * N_LAYERS


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_runs_its_own_layers_checkpointed(duplicate):
    model = model_of()
    checkpoint_layers(model)
    copied = duplicate(model)
    expected = gradients(model_of())
    model[0].up.weight.data.zero_()
    with record_op_dtypes() as dtypes:
        assert torch.equal(gradients(copied), expected)
    assert dtypes["aten.addmm"].total() == 3 * N_LAYERS


def test_a_pickled_copy_keeps_its_saved_operations():
    model = model_of()
    checkpoint_layers(model, save_ops=MATMUL_OPS)
    copied = pickle.loads(pickle.dumps(model))
    with record_op_dtypes() as dtypes:
        assert torch.equal(gradients(copied), gradients(model_of()))
    assert dtypes["aten.addmm"].total() == 2 * 2 * N_LAYERS  # the copy's and the other's, none recomputed


def test_a_dropped_model_is_gone_at_once():
    model = model_of()
    checkpoint_layers(model)
    gradients(model)
    gone = weakref.ref(model[0])
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_a_keyword_with_the_name_of_one_of_checkpoints_own_reaches_the_layer():
    model, plain = model_of(), model_of()
    checkpoint_layers(model)

    def with_keyword(layers):
        return lambda x: layers[1](layers[0](x, debug=2.0), debug=torch.tensor(3.0))

    for changed, other in zip(model[:2].parameters(), plain[:2].parameters(), strict=True):
        assert torch.equal(changed, other)
    assert torch.equal(gradients(model[:2], with_keyword(model)), gradients(plain[:2], with_keyword(plain)))


def test_hooks_of_a_layer_run_once_a_pass_and_those_inside_it_twice():
    model, calls = model_of(), []
    checkpoint_layers(model)
    model[0].register_forward_hook(lambda *_: calls.append("layer"))
    model[0].up.register_forward_hook(lambda *_: calls.append("inside"))
    gradients(model)
    assert calls == ["inside", "layer", "inside"]


@pytest.mark.parametrize("options", [{}, {"save_ops": MATMUL_OPS}])
def test_recomputing_is_in_the_dtype_of_the_forward_pass(options):
    def step(model):
        with autocast("cpu", torch.bfloat16):
            loss = model(inputs_of().float()).float().square().sum()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    model = model_of().float()
    checkpoint_layers(model, **options)
    assert torch.equal(step(model), step(model_of().float()))


@pytest.mark.parametrize("options", [{}, {"save_ops": MATMUL_OPS}])
def test_it_compiles_into_one_graph(options):
    model = model_of()
    checkpoint_layers(model, **options)
    # aot_eager: traced and partitioned as always, without a C++ compiler
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradients(model, compiled), gradients(model_of()), rtol=1e-12, atol=1e-15)


def test_accumulated_gradients_are_the_same_to_the_last_bit():
    results = []
    for model in (model_of(0.5), model_of(0.5)):
        if results:
            checkpoint_layers(model)
        torch.manual_seed(3)
        accumulate_gradients(
            lambda x, model=model: model(x).square().sum(), inputs_of().split([3, 5]), num_valid=ROWS
        )
        results.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*results)


def test_a_layer_given_twice_is_checkpointed_once():
    layer = Block()
    assert checkpoint_layers([layer, layer]).layers == (layer,)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([], {}, "at least one layer"),
        (Block(), {}, r"give model\.layers, or \[layer\]"),
        (nn.ModuleDict({"a": Block()}), {}, r"expected nn\.Module, got 'a'"),
        ([Block()], {"every": 0}, "a whole every >= 1"),
        ([Block()], {"every": 1.5}, "a whole every >= 1, got 1.5"),
        ([Block()], {"save_ops": "aten.mm"}, r"one name is no collection.*give \['aten.mm'\]"),
        ([Block()], {"save_ops": [torch.ops.aten.mm.default]}, "without overload, got aten.mm.default"),
        ([Block()], {"save_ops": ["aten.matmull"]}, "no such operation.*got aten.matmull"),
        ([Block()], {"save_ops": ["aten.mm.default"]}, "without overload"),
        ([Block()], {"save_ops": ["mm"]}, "no such operation"),
    ],
)
def test_what_cannot_be_checkpointed_is_an_error(layers, options, message):
    with pytest.raises(InputError, match=message):
        checkpoint_layers(layers, **options)


def test_checkpointing_twice_or_under_a_replaced_forward_is_an_error_that_changes_nothing():
    model = model_of()
    checkpoint_layers(model[1:2])
    with pytest.raises(InputError, match="checkpointed already: got Block"):
        checkpoint_layers(model)
    assert type(model[0]) is Block
    model[0].forward = model[0].forward
    with pytest.raises(InputError, match="replaced a layer's forward"):
        checkpoint_layers(model[:1])


def test_the_naive_version_refuses_inputs_that_would_cost_the_parameters_their_gradients():
    layer = Block().double()
    with pytest.raises(InputError, match="no input requires a gradient"):
        recompute_naive(layer, inputs_of())
    with torch.no_grad():
        assert not recompute_naive(layer, inputs_of()).requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{"every": 1}, {"save_ops": MATMUL_OPS}])
def test_on_cuda_dropout_draws_the_same_masks_and_the_peak_falls(options):
    results, peaks = [], []
    for checkpointed in (False, True):
        model, x = model_of(0.5).cuda(), inputs_of().cuda()
        if checkpointed:
            checkpoint_layers(model, **options)
        torch.manual_seed(5)
        with measure_live_tensors() as live:
            model(x).square().sum().backward()
        results.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        peaks.append(live.peak_bytes)
    torch.testing.assert_close(*results, rtol=1e-12, atol=0)
    assert peaks[1] < peaks[0]
