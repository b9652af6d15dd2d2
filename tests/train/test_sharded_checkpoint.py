"""Shards saved in one layout load into any other; ranks agree on what is whole, and survive a killed one."""

import contextlib
import os
import re
import signal
import time

import pytest
import torch
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import RankError, launch
from coursekit.train import (
    CheckpointError,
    ResumableSampler,
    find_damage,
    list_checkpoints,
    load_latest,
    load_sharded,
    preserve_rng,
    save_checkpoint,
    save_sharded,
)

NUM_SAMPLES = 8


@pytest.fixture(autouse=True)
def _leave_global_randomness_alone():
    with preserve_rng():
        yield


def build(layout="bare", drop=0.0):
    """Return a model in a layout, and its optimizer and schedule."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    # 5 and 3 do not divide by 2 or 4: shards of unequal sizes, and empty ones.
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(drop), nn.Linear(5, 3)).double()
    if layout in ("fsdp2", "hsdp"):
        mesh = (
            init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "shard")) if layout == "hsdp" else None
        )
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif layout == "ddp":
        model = DistributedDataParallel(model)
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for name, p in named.items() if name.endswith("weight")], "weight_decay": 0.1},
            {"params": [p for name, p in named.items() if name.endswith("bias")], "weight_decay": 0.0},
        ],
        lr=0.05,
        foreach=False,
    )
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


def train_step(model, optimizer, schedule, x):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    schedule.step()


def samples():
    return torch.randn(NUM_SAMPLES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def whole(model):
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach() for p in model.parameters()]


def my_samples():
    import torch.distributed as dist

    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return samples()[rank * NUM_SAMPLES // size : (rank + 1) * NUM_SAMPLES // size]


def go_on(layout, folder, num_steps, forget=""):
    """Load what there is, train some steps more, save; return the last step and the whole parameters."""
    model, optimizer, schedule = build(layout)
    step = load_sharded(folder, model=model, optimizer=optimizer, schedule=schedule).step
    if forget == "optimizer":
        optimizer.state.clear()
    for _ in range(num_steps):
        train_step(model, optimizer, schedule, my_samples())
        step += 1
    save_sharded(folder, step, model=model, optimizer=optimizer, schedule=schedule)
    return step, whole(model)


def one_process(num_steps):
    """The oracle: no checkpoint, no ranks."""
    model, optimizer, schedule = build()
    for _ in range(num_steps):
        train_step(model, optimizer, schedule, samples())
    return whole(model)


def assert_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_two_ranks_then_one_process_then_two_other_ranks_equal_one_process(tmp_path):
    for results in (
        launch(go_on, 2, "fsdp2", tmp_path, 2, timeout_seconds=120),
        [go_on("bare", tmp_path, 2)],
        launch(go_on, 2, "ddp", tmp_path, 2, timeout_seconds=120),
    ):
        step, parameters = results[0]
        assert_equal(parameters, one_process(step))
    assert step == 6


@pytest.mark.slow
def test_four_ranks_then_a_mesh_then_two_then_ddp_then_one_process_equal_one_process(tmp_path):
    for layout, world_size in [("fsdp2", 4), ("hsdp", 4), ("fsdp2", 2), ("ddp", 2)]:
        for step, parameters in launch(go_on, world_size, layout, tmp_path, 2, timeout_seconds=120):
            assert_equal(parameters, one_process(step))
    step, parameters = go_on("bare", tmp_path, 2)
    assert step == 10
    assert_equal(parameters, one_process(10))


def test_control_a_resume_without_the_optimizers_state_ends_elsewhere(tmp_path):
    go_on("bare", tmp_path, 2)
    _, parameters = go_on("bare", tmp_path, 2, forget="optimizer")
    with pytest.raises(AssertionError):
        assert_equal(parameters, one_process(4))


def go_on_with_an_average(layout, folder, num_steps):
    """Train with a moving average of the weights, in the model's own layout; return the whole average."""
    model, optimizer, _ = build(layout)
    average, *_ = build(layout)
    step = load_sharded(folder, model=model, optimizer=optimizer, average=average).step
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(my_samples()).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 0.3)
        step += 1
    save_sharded(folder, step, model=model, optimizer=optimizer, average=average)
    return whole(average)


def test_a_further_module_is_sharded_and_loads_into_another_layout_too(tmp_path):
    expected = go_on_with_an_average("bare", tmp_path / "whole", 4)
    launch(go_on_with_an_average, 2, "fsdp2", tmp_path / "run", 2, timeout_seconds=120)
    (actual, _) = launch(go_on_with_an_average, 2, "ddp", tmp_path / "run", 2, timeout_seconds=120)
    assert_equal(actual, expected)
    model, optimizer, _ = build()
    with pytest.raises(InputError, match="other parts: expected average, got none"):
        load_sharded(tmp_path / "run", model=model, optimizer=optimizer)


def train_with_dropout(folder, total_steps, kill_rank_1_after=None, forget=""):
    """Train FSDP2 with dropout and shuffled data, saving each step; return the local shards, concatenated."""
    import torch.distributed as dist
    from torch.utils.data import DataLoader

    rank, size = dist.get_rank(), dist.get_world_size()
    model, optimizer, schedule = build("fsdp2", drop=0.4)
    torch.manual_seed(10 + rank)  # each rank drops out its own
    data = ResumableSampler(NUM_SAMPLES, seed=0, dp_rank=rank, dp_size=size)
    loader = DataLoader(samples(), batch_size=2, sampler=data)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "data": data}
    start = step = load_sharded(folder, **parts).step
    if forget == "own random state" and start:
        from coursekit.train.checkpoint_state import unpack_rng_state

        unpack_rng_state(torch.load(list_checkpoints(folder)[-1] / "rng_0.pt", weights_only=True))
    while step < total_steps:
        for x in data.consume(loader):
            train_step(model, optimizer, schedule, x)
            step += 1
            save_sharded(folder, step, **parts)
            if step == kill_rank_1_after and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == total_steps:
                break
    return start, torch.cat([p.to_local().detach().flatten() for p in model.parameters()])


@pytest.mark.slow
def test_a_killed_rank_is_named_in_seconds_and_the_run_resumes_in_the_same_bits(tmp_path):
    uninterrupted = launch(train_with_dropout, 2, tmp_path / "whole", 7, timeout_seconds=120)
    started = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 of 2 failed first: .*SIGKILL"):
        launch(train_with_dropout, 2, tmp_path / "run", 7, kill_rank_1_after=3, timeout_seconds=120)
    assert time.monotonic() - started < 60  # seconds, and not the time limit of a collective
    resumed = launch(train_with_dropout, 2, tmp_path / "run", 7, timeout_seconds=120)
    for (start, shards), (_, expected) in zip(resumed, uninterrupted, strict=True):
        assert start in (3, 4)
        assert torch.equal(shards, expected)


@pytest.mark.slow
def test_control_ranks_that_resume_with_rank_0s_random_state_end_elsewhere(tmp_path):
    uninterrupted = launch(train_with_dropout, 2, tmp_path / "whole", 5, timeout_seconds=120)
    launch(train_with_dropout, 2, tmp_path / "run", 3, timeout_seconds=120)
    resumed = launch(
        train_with_dropout, 2, tmp_path / "run", 5, forget="own random state", timeout_seconds=120
    )
    assert not torch.equal(resumed[1][1], uninterrupted[1][1])


def random_numbers(folder, save):
    import torch.distributed as dist

    model, optimizer, _ = build()
    torch.manual_seed(dist.get_rank())
    if save:
        save_sharded(folder, 1, model=model, optimizer=optimizer)
    else:
        load_sharded(folder, model=model, optimizer=optimizer)
    return float(torch.rand(()))


def test_each_rank_gets_its_random_state_back_and_a_new_rank_one_of_its_own(tmp_path):
    saved = launch(random_numbers, 2, tmp_path, True, timeout_seconds=120)
    loaded = launch(random_numbers, 3, tmp_path, False, timeout_seconds=120)
    assert loaded[:2] == saved
    assert len(set(loaded)) == 3


def test_saving_before_the_first_step_changes_nothing_though_torchs_own_state_dict_takes_a_step(tmp_path):
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer, schedule = build()
    model(samples()).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    save_sharded(tmp_path, 0, model=model, optimizer=optimizer, schedule=schedule)
    assert not optimizer.state
    assert all(map(torch.equal, [p.grad for p in model.parameters()], gradients))
    optimizer.zero_grad()
    for folder in (tmp_path, tmp_path / "none"):  # a run that loads step 0, one that starts
        assert_equal(go_on("bare", folder, 3)[1], one_process(3))
    get_state_dict(model, optimizer)
    assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}


def test_a_resume_into_a_model_that_has_gradients_loads_the_optimizers_state(tmp_path):
    go_on("bare", tmp_path, 2)
    model, optimizer, schedule = build()
    model(samples()).sum().backward()
    load_sharded(tmp_path, model=model, optimizer=optimizer, schedule=schedule)
    train_step(model, optimizer, schedule, samples())
    assert_equal(whole(model), one_process(3))


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def save_thrice(folder):
    for _ in range(3):
        go_on("fsdp2", folder, 1)


def test_ranks_agree_to_pass_over_checkpoints_of_which_one_ranks_file_is_damaged(tmp_path):
    launch(save_thrice, 2, tmp_path, timeout_seconds=120)
    for path, name in zip(list_checkpoints(tmp_path)[1:], ["__1_0.distcp", "rng_1.pt"], strict=True):
        flip_a_byte(path / name)
        assert find_damage(path) == f"{name} differs from its checksum"
    for step, parameters in launch(go_on, 2, "fsdp2", tmp_path, 1, timeout_seconds=120):
        assert step == 2
        assert_equal(parameters, one_process(2))
    assert find_damage(list_checkpoints(tmp_path)[-1]) is None


def save_with_little_room_on_rank_1(folder):
    import resource

    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(nn.Linear(200, 200))
    optimizer = torch.optim.Adam(model.parameters())
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
    try:
        save_sharded(folder, 9, model=model, optimizer=optimizer)
    except CheckpointError as error:
        return str(error)


def test_a_full_disk_on_one_rank_is_an_error_on_all_and_leaves_nothing(tmp_path):
    go_on("bare", tmp_path, 2)
    for text in launch(save_with_little_room_on_rank_1, 2, tmp_path, timeout_seconds=120):
        assert re.search(r"(?s)could not be written .*rank 1.*step_00000002 is still there", text)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


def test_an_optimizer_of_other_parameters_is_refused(tmp_path):
    """Made before the model is sharded, it holds tensors that the model has dropped."""
    model, optimizer, _ = build()
    with pytest.raises(InputError, match="make the optimizer after the model has been wrapped"):
        save_sharded(tmp_path, 1, model=model[0], optimizer=optimizer)
    save_sharded(tmp_path, 1, model=model, optimizer=optimizer)
    with pytest.raises(InputError, match=r"got 2 of shapes \[\(3, 5\), \(3,\)\]"):
        load_sharded(tmp_path, model=model[0], optimizer=optimizer)


def test_a_damaged_checkpoint_is_named_and_if_all_are_the_error_lists_them(tmp_path):
    go_on("bare", tmp_path, 1)
    (list_checkpoints(tmp_path)[0] / ".metadata").unlink()
    model, optimizer, schedule = build()
    with (
        pytest.raises(CheckpointError, match=r"no checkpoint can be used:\n.*\.metadata is missing"),
        pytest.warns(UserWarning, match=r"step_00000001 is damaged: \.metadata is missing"),
    ):
        load_sharded(tmp_path, model=model, optimizer=optimizer, schedule=schedule)


def test_another_model_is_refused_by_the_names_of_its_parameters(tmp_path):
    go_on("bare", tmp_path, 1)
    other = nn.Sequential(nn.Linear(3, 5)).double()
    other.add_module("head", nn.Linear(5, 3).double())
    optimizer = torch.optim.AdamW(other.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, float)
    with pytest.raises(CheckpointError, match=r"step_00000001 cannot be loaded: (?s:.*)head\.weight"):
        load_sharded(tmp_path, model=other, optimizer=optimizer, schedule=schedule)


def test_each_kind_of_checkpoint_names_the_function_that_reads_it(tmp_path):
    model, optimizer, _ = build()
    save_sharded(tmp_path / "sharded", 1, model=model, optimizer=optimizer)
    with pytest.raises(InputError, match="use load_sharded"):
        load_latest(tmp_path / "sharded", model=model, optimizer=optimizer)
    save_checkpoint(tmp_path / "plain", 1, model=model, optimizer=optimizer)
    with pytest.raises(InputError, match="use load_latest"):
        load_sharded(tmp_path / "plain", model=model, optimizer=optimizer)


def save_from_each_rank(folder):
    try:
        save_checkpoint(folder, 1, model=nn.Linear(1, 1))
    except InputError as error:
        return str(error)


def test_save_checkpoint_refuses_several_ranks_whose_random_states_it_would_lose(tmp_path):
    for text in launch(save_from_each_rank, 2, tmp_path, timeout_seconds=120):
        assert "got 2 ranks; use save_sharded" in text


def test_files_that_would_run_code_are_not_run(tmp_path):
    import pickle

    from torch.distributed.checkpoint import FileSystemReader

    from coursekit.train.sharded_reader import PlainReader

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    (tmp_path / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(pickle.UnpicklingError, match="metadata names "):
        PlainReader(tmp_path).read_metadata()
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(AttributeError):  # what it got is no metadata
        FileSystemReader(tmp_path).read_metadata()
    assert (tmp_path / "ran").exists()  # the control: torch's own reader has run it


def test_a_value_that_would_run_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    model, optimizer, _ = build()
    optimizer.param_groups[0]["evil"] = Evil()
    save_sharded(tmp_path, 1, model=model, optimizer=optimizer)
    optimizer.param_groups[0]["evil"] = 0
    with pytest.raises(CheckpointError, match="step_00000001 cannot be loaded: on rank 0, UnpicklingError"):
        load_sharded(tmp_path, model=model, optimizer=optimizer)
    assert not (tmp_path / "ran").exists()
