"""A run that resumes ends as one that was never interrupted, bit for bit; what cannot says so early."""

import argparse
import functools
import hashlib
import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from coursekit.errors import InputError
from coursekit.train import (
    CheckpointError,
    ResumableSampler,
    accumulate_gradients,
    find_damage,
    group_micro_batches,
    list_checkpoints,
    load_checkpoint_naive,
    load_latest,
    preserve_rng,
    read_checkpoint,
    save_checkpoint,
    save_checkpoint_naive,
    seed_everything,
)


@pytest.fixture(autouse=True)
def _leave_global_randomness_alone():
    with preserve_rng():
        yield


class Run:
    """A run with everything that a resume can forget: dropout, AdamW, a schedule, a scaler, shuffled data,
    accumulation over a remainder, noise from Python's and NumPy's generators.
    """

    num_steps = 9

    def __init__(self):
        seed_everything(3)
        self.model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 0.8**step)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        self.data = ResumableSampler(23, seed=1)
        x = torch.randn(23, 3, generator=torch.Generator().manual_seed(0))
        self.loader = DataLoader(TensorDataset(x), batch_size=3, sampler=self.data)
        self.parts = {
            name: getattr(self, name) for name in ("model", "optimizer", "schedule", "scaler", "data")
        }
        self.step = 0

    def steps(self):
        """Yield after each step up to the last; three or two micro-batches a step, eight an epoch."""
        while True:
            for group in group_micro_batches(self.data.consume(self.loader), 3):
                self.optimizer.zero_grad()
                num_valid = sum(len(x) for (x,) in group)
                accumulate_gradients(self._loss_sum, group, num_valid=num_valid, backward=self._backward)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.schedule.step()
                self.step += 1
                yield
                if self.step == self.num_steps:
                    return

    def _backward(self, loss):
        self.scaler.scale(loss).backward()

    def _loss_sum(self, micro_batch):
        (x,) = micro_batch
        noise = random.random() + float(np.random.rand())
        return (self.model(x) - noise).square().sum()

    def end_state(self):
        return [*self.model.state_dict().values(), torch.tensor(self.scaler.get_scale())]


@functools.cache
def uninterrupted():
    run = Run()
    for _ in run.steps():
        pass
    return run.end_state()


def resumed(folder, kill_after, parts=("model", "optimizer", "schedule", "scaler", "data")):
    """Return the end of a run that stops after some steps, in the eyes of a new one that takes over."""
    first = Run()
    for _ in itertools.islice(first.steps(), kill_after):
        pass
    save_checkpoint(folder, first.step, **{name: first.parts[name] for name in parts})
    second = Run()
    second.step = load_latest(folder, **{name: second.parts[name] for name in parts}).step
    if second.step < second.num_steps:
        for _ in second.steps():
            pass
    return second.end_state()


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kill_after", [1, 3, 5, 9])  # 3 and 9 end an epoch
def test_a_run_resumed_after_any_step_ends_in_the_same_bits(tmp_path, kill_after):
    assert equal(resumed(tmp_path, kill_after), uninterrupted())


@pytest.mark.parametrize("forgotten", ["optimizer", "schedule", "scaler", "data"])
def test_control_a_resume_that_forgets_a_part_ends_elsewhere(tmp_path, forgotten):
    kept = {"model", "optimizer", "schedule", "scaler", "data"} - {forgotten}
    assert not equal(resumed(tmp_path, 4, parts=kept), uninterrupted())


@pytest.mark.parametrize("generator", ["torch", "python", "numpy"])
def test_control_a_resume_that_forgets_a_random_state_ends_elsewhere(tmp_path, monkeypatch, generator):
    def forgetful():
        state = real()
        del state[generator]
        return state

    def lenient(state):
        set_real({**real(), **state})

    from coursekit.train import checkpoint, checkpoint_state

    real, set_real = checkpoint.pack_rng_state, checkpoint.unpack_rng_state
    monkeypatch.setattr(checkpoint, "pack_rng_state", forgetful)
    monkeypatch.setattr(checkpoint, "unpack_rng_state", lenient)
    assert checkpoint_state.pack_rng_state is real
    assert not equal(resumed(tmp_path, 4), uninterrupted())


def test_the_naive_one_resumes_a_run_without_randomness_and_no_other(tmp_path):
    def run(drop, stop=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(drop), nn.Linear(3, 1))
        optimizer = torch.optim.Adam(model.parameters())
        step = load_checkpoint_naive(tmp_path / str(drop), model=model, optimizer=optimizer)
        while step < 6:
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            step += 1
            if step == stop:
                save_checkpoint_naive(tmp_path / str(drop), step, model=model, optimizer=optimizer)
                break
        return list(model.parameters())

    for drop in (0.0, 0.5):
        whole = run(drop)
        run(drop, stop=3)
        assert equal(run(drop), whole) == (drop == 0)


def test_an_empty_folder_starts_a_run_and_leaves_everything_as_it_is(tmp_path):
    model = nn.Linear(2, 2)
    before = [p.clone() for p in model.parameters()]
    torch.manual_seed(5)
    resume = load_latest(tmp_path / "none", model=model)
    assert (resume.step, resume.path, resume.extra) == (0, None, {})
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(5)))
    assert equal(model.parameters(), before)


def test_extra_values_and_the_path_come_back(tmp_path):
    path = save_checkpoint(tmp_path, 3, extra={"best_loss": 1.5, "history": [torch.ones(2)]})
    resume = load_latest(tmp_path)
    assert (resume.step, resume.path, resume.extra["best_loss"]) == (3, path, 1.5)
    assert read_checkpoint(path)["extra"]["history"][0].tolist() == [1, 1]


def test_a_part_that_is_none_is_not_in_use(tmp_path):
    save_checkpoint(tmp_path, 1, model=nn.Linear(1, 1), scaler=None)
    assert load_latest(tmp_path, model=nn.Linear(1, 1), scaler=None).step == 1


@pytest.mark.parametrize("loaded", [{"model"}, {"model", "optimizer", "schedule"}])
def test_a_resume_that_names_other_parts_is_refused(tmp_path, loaded):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters())
    parts = {
        "model": model,
        "optimizer": optimizer,
        "schedule": torch.optim.lr_scheduler.ConstantLR(optimizer),
    }
    save_checkpoint(tmp_path, 1, model=model, optimizer=optimizer)
    with pytest.raises(InputError, match="other parts: expected model, optimizer, got"):
        load_latest(tmp_path, **{name: parts[name] for name in loaded})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (argparse.Namespace(lr=1), r"extra\['value'\] cannot be saved.*got argparse.Namespace"),
        ([{"lr": np.float64(1)}], r"extra\['value'\]\[0\]\['lr'\] cannot be saved.*got numpy.float64"),
    ],
)
def test_what_would_not_load_again_is_refused_when_it_is_saved(tmp_path, value, words):
    with pytest.raises(InputError, match=words):
        save_checkpoint(tmp_path, 1, extra={"value": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [{1, 2}, b"x", 1j, torch.float16, torch.Size([1]), (None, True), "é"])
def test_what_is_not_refused_loads_again(tmp_path, value):
    save_checkpoint(tmp_path, 1, extra={"value": value})
    assert load_latest(tmp_path).extra["value"] == value


def test_a_part_without_state_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"best_loss has no state to save.*got float; .*extra="):
        save_checkpoint(tmp_path, 1, best_loss=1.0)


@pytest.mark.parametrize("step", [-1, 1.0, True, None])
def test_a_step_that_is_no_whole_number_is_refused(tmp_path, step):
    with pytest.raises(InputError, match="no such step"):
        save_checkpoint(tmp_path, step)


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    save_checkpoint(tmp_path, 1)
    path = save_checkpoint(tmp_path, 2)
    torch.save({"step": 2, "extra": Evil()}, path / "state.pt")
    digest = hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()
    (path / "SHA256SUMS").write_text(f"{digest}  state.pt\n")
    assert find_damage(path) is None
    with pytest.warns(UserWarning, match="step_00000002 cannot be read: UnpicklingError"):
        assert load_latest(tmp_path).step == 1
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_the_random_state_of_devices_that_are_not_here_is_left_with_a_warning(tmp_path):
    from coursekit.train.checkpoint_state import pack_rng_state, unpack_rng_state

    state = {**pack_rng_state(), "cuda": [torch.get_rng_state()] * 100}
    expected = torch.rand(1)
    with pytest.warns(UserWarning, match="random state of cuda is not restored"):
        unpack_rng_state(state)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_run_on_a_gpu_resumes_in_the_same_bits(tmp_path):
    def run(stop=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)).cuda()
        optimizer = torch.optim.AdamW(model.parameters())
        step = load_latest(tmp_path, model=model, optimizer=optimizer).step
        while step < 6:
            optimizer.zero_grad()
            model(torch.ones(4, 8, device="cuda")).sum().backward()
            optimizer.step()
            step += 1
            if step == stop:
                save_checkpoint(tmp_path, step, model=model, optimizer=optimizer)
                break
        return list(model.parameters())

    whole = run()
    run(stop=3)
    assert equal(run(), whole)


def test_warnings_are_not_raised_by_a_plain_save_and_load(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = Run()
        save_checkpoint(tmp_path, 1, **run.parts)
        load_latest(tmp_path, **run.parts)
    assert len(list_checkpoints(tmp_path)) == 1
