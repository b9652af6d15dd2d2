"""Mistakes that torch lets pass, or tells of in words about something else: each is an error by name."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from coursekit.errors import InputError
from coursekit.train import (
    CheckpointError,
    DynamicBatchSize,
    EarlyStopping,
    JsonLines,
    LossScaler,
    MasterWeightsNaive,
    Monitor,
    NoProgressDetector,
    PlateauDetector,
    ResumableSampler,
    SpikeDetector,
    WarmupConstant,
    WarmupCosine,
    WarmupExponential,
    WarmupLinear,
    WarmupStableDecay,
    accumulate_gradients,
    all_reduce_count,
    clip_gradients,
    count_valid,
    find_lr,
    fit,
    group_micro_batches,
    load_latest,
    load_sharded,
    make_optimizer,
    parameter_groups,
    repeat_step_until_it_fits_naive,
    save_checkpoint,
    save_sharded,
    seed_everything,
    set_lr,
    smoothed_cross_entropy_naive,
)

X = torch.ones(4, 2)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def accumulate(micro_batches=(X,), **options):
    model = nn.Linear(2, 1)
    return accumulate_gradients(lambda x: model(x).sum(), micro_batches, **{"num_valid": 4, **options})


def fit_with(steps=((X,),), **options):
    model = nn.Linear(2, 1)
    given = {"model": model, "optimizer": sgd(model), "count": lambda group: 4, **options}
    return fit(lambda x: model(x).sum(), steps, **given)


def clip(of):
    model = nn.Linear(2, 1)
    model(X).sum().backward()
    return clip_gradients(of(model), 1.0)


def read_before(model):
    parameters = model.parameters()
    list(parameters)
    return parameters


def out_of_memory(size):
    raise torch.OutOfMemoryError


def set_to_nothing():
    sizes = DynamicBatchSize(nn.Linear(2, 1), micro_batch_size=2)
    sizes.micro_batch_size = 0
    return sizes.run(out_of_memory)


def step_masters(optimizer_of):
    model = nn.Linear(2, 1)
    masters = MasterWeightsNaive(model)
    return masters.step(torch.optim.SGD(optimizer_of(masters, model), lr=0.1))


def find_lr_of_another_model():
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    return find_lr(model, sgd(other), train_step=lambda: 1.0)


def log(**values):
    with Monitor(every=1) as monitor:
        monitor.log(0, **values)


def make(name="sgd", params=None, **options):
    params = list(nn.Linear(2, 2).parameters()) if params is None else params
    return make_optimizer(name, params, **{"lr": 0.1, **options})


def consume(num_samples, dataset):
    sampler = ResumableSampler(num_samples, seed=0)
    return list(sampler.consume(DataLoader(dataset, batch_size=2, sampler=sampler)))


CALLS = {
    "endlessly many valid": (lambda: accumulate(num_valid=math.inf), "a finite num_valid > 0, got inf"),
    "one batch for micro-batches": (lambda: accumulate(X), r"give \[batch\], or split_into_micro_batches"),
    "a dict for micro-batches": (lambda: accumulate({"input_ids": X}), "one batch is no list"),
    "half a rank": (lambda: accumulate(dp_size=1.5), "a whole dp_size >= 1, got 1.5"),
    "no rank": (lambda: accumulate(dp_size=math.nan), "a whole dp_size >= 1, got nan"),
    "a mask counted": (lambda: count_valid(torch.tensor([True, False])), "got torch.bool"),
    "a list counted": (lambda: count_valid([1, 2]), "tensors of whole numbers, got list"),
    "half a count": (lambda: all_reduce_count(2.5), "a whole number, got 2.5"),
    "half a micro-batch": (lambda: list(group_micro_batches([1, 2, 3], 1.5)), "a whole grad_accum_steps"),
    "batches for steps": (lambda: fit_with([X, X]), "one batch is no list of micro-batches"),
    "a learning rate for a schedule": (lambda: fit_with(schedule=0.1), "no schedule: .* got float"),
    "a step before the first": (lambda: fit_with(first_step=-1), "a whole first_step >= 0, got -1"),
    "no limit": (lambda: fit_with(max_grad_norm=None), r'float\("inf"\) to measure only, got None'),
    "gradients clipped": (
        lambda: clip(lambda m: [p.grad for p in m.parameters()]),
        "none with requires",
    ),
    "parameters read before": (lambda: clip(read_before), "got 0 tensors"),
    "names clipped": (lambda: clip(nn.Module.state_dict), "expected parameters, got str"),
    "an endless scale": (lambda: LossScaler("cpu", init_scale=math.inf), "a finite init_scale"),
    "half an interval": (lambda: LossScaler("cpu", growth_interval=1.5), "a whole growth_interval"),
    "masters without scale": (lambda: MasterWeightsNaive(nn.Linear(2, 1), init_scale=0), "init_scale"),
    "the model's own weights": (
        lambda: step_masters(lambda masters, model: model.parameters()),
        "holds no master weight",
    ),
    "not unscaled": (
        lambda: step_masters(lambda masters, model: masters.parameters),
        r"backward\(loss\), then unscale\(\)",
    ),
    "a size set to 0": (set_to_nothing, "a whole micro_batch_size >= 1, got 0"),
    "a size of 0": (
        lambda: repeat_step_until_it_fits_naive(out_of_memory, nn.Linear(2, 1), micro_batch_size=0),
        "a whole micro_batch_size >= 1, got 0",
    ),
    "no model to repeat": (lambda: DynamicBatchSize(None, micro_batch_size=2), "nn.Module, got NoneType"),
    "a share for steps": (lambda: WarmupConstant(warmup_steps=0.1), "a whole warmup_steps >= 0, got 0.1"),
    "NaN steps": (lambda: WarmupExponential(gamma=0.9, warmup_steps=math.nan), "a whole warmup_steps"),
    "half a step": (lambda: WarmupLinear(total_steps=10.5), "a whole total_steps >= 1, got 10.5"),
    "text for steps": (lambda: WarmupCosine(total_steps="10"), "a whole total_steps >= 1, got '10'"),
    "text for a decay": (lambda: WarmupStableDecay(total_steps=9, decay_steps="2"), "a whole decay_steps"),
    "text for a floor": (lambda: WarmupLinear(total_steps=9, min_ratio="0"), "0 <= min_ratio <= 1, got '0'"),
    "a schedule not called": (lambda: set_lr(sgd(nn.Linear(2, 1)), WarmupConstant()), r"schedule\(step\)"),
    "NaN for a rate": (lambda: make(lr=math.nan), "a finite lr >= 0, got nan"),
    "an endless rate": (lambda: make("adamw", lr=math.inf), "a finite lr >= 0, got inf"),
    "NaN for a group's rate": (
        lambda: make("adam", [{"params": list(nn.Linear(2, 1).parameters()), "lr": math.nan}]),
        "a finite lr >= 0, got nan",
    ),
    "NaN for a decay": (lambda: make(weight_decay=math.nan), "a finite weight_decay >= 0, got nan"),
    "one beta": (lambda: make("adamw", betas=(0.9,)), "adamw refuses its arguments"),
    "a method for parameters": (lambda: make(params=nn.Linear(2, 1).parameters), "no parameter to optimize"),
    "names for parameters": (lambda: make(params=nn.Linear(2, 1).state_dict()), "got 'weight'"),
    "a group without parameters": (lambda: make(params=[{"lr": 0.1}]), r"without 'params': \['lr'\]"),
    "parameters for a model": (
        lambda: parameter_groups(nn.Linear(2, 1).parameters(), weight_decay=0.1),
        "expected a model, got generator",
    ),
    "another model's optimizer": (find_lr_of_another_model, "parameters that the model does not"),
    "a path for sinks": (lambda: Monitor("log.jsonl"), r"got 'log.jsonl'; give a list"),
    "no record": (lambda: Monitor(every=math.nan), "a whole every >= 1, got nan"),
    "text for a figure": (lambda: log(loss="high"), "loss of step 0 is no figure: .* got 'high'"),
    "nothing for a figure": (lambda: log(grad_norm=None), "grad_norm of step 0 is no figure"),
    "no end of patience": (lambda: EarlyStopping(patience=math.nan), "a whole patience >= 1, got nan"),
    "half a window": (lambda: SpikeDetector(window=1.5), "window is too small"),
    "a window of NaN": (lambda: PlateauDetector(window=math.nan), "window is too small"),
    "NaN classes": (lambda: NoProgressDetector(math.nan), "num_classes is too small"),
    "half a seed": (lambda: seed_everything(1.5), "a whole seed >= 0, got 1.5"),
    "a class of -1": (
        lambda: smoothed_cross_entropy_naive(torch.zeros(1, 2), torch.tensor([-1]), label_smoothing=0.1),
        "labels >= 0, or -100, got -1",
    ),
    "a longer dataset": (lambda: consume(4, range(8)), "4 samples, as the sampler was told, got 8"),
    "a shorter dataset": (lambda: consume(8, range(4)), "8 samples, as the sampler was told, got 4"),
    "a dataset for its length": (lambda: ResumableSampler([1, 2], seed=0), "a whole num_samples"),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistake_is_an_error_by_name(mistake):
    call, message = CALLS[mistake]
    with pytest.raises(InputError, match=message):
        call()


def test_a_seed_that_is_refused_has_seeded_nothing():
    seed_everything(0)
    expected = torch.rand(1), seed_everything(0)
    with pytest.raises(InputError):
        seed_everything(1.5)
    assert torch.equal(torch.rand(1), expected[0])


def parts():
    model = nn.Linear(2, 1)
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}


@pytest.mark.parametrize(("save", "load"), [(save_checkpoint, load_latest), (save_sharded, load_sharded)])
def test_a_checkpoint_is_no_folder_of_a_run(tmp_path, save, load):
    path = save(tmp_path, 1, **parts())
    with pytest.raises(InputError, match=f"this is a checkpoint.* give {tmp_path}"):
        load(path, **parts())
    with pytest.raises(InputError, match="this is a checkpoint"):
        save(path, 2, **parts())
    assert load(tmp_path, **parts()).step == 1  # a save into it would have made it a damaged one


@pytest.mark.parametrize("load", [load_latest, load_sharded])
def test_a_file_is_no_folder_of_a_run(tmp_path, load):
    (tmp_path / "model.pt").write_bytes(b"weights")
    with pytest.raises(InputError, match="a folder, got the file"):
        load(tmp_path / "model.pt", **parts())


def test_weights_that_the_model_has_no_place_for_are_not_left_out(tmp_path):
    save_sharded(tmp_path, 1, **parts())
    smaller = nn.Linear(2, 1, bias=False)
    with pytest.raises(CheckpointError, match=r"another model: names in the file alone: \['bias'\]"):
        load_sharded(tmp_path, model=smaller, optimizer=torch.optim.AdamW(smaller.parameters()))


def test_weights_without_memory_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="has no data to save"):
        save_checkpoint(tmp_path, 1, model=nn.Linear(2, 1, device="meta"))


def test_a_sink_alone_is_a_sink(tmp_path):
    with Monitor(JsonLines(tmp_path / "log.jsonl"), every=1) as monitor:
        monitor.log(0, loss=1.0)
    assert '"loss": 1.0' in (tmp_path / "log.jsonl").read_text()
