"""Fault injection: real processes, killed at random moments, between any two calls of a save, amid a write.

This file is also the script that it tests: run with a command and a folder, it forks a process for each life
of the run. The parent has imported torch and computed nothing: a fork is safe, and a life begins at once.
"""

import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from coursekit.train import (
    CheckpointError,
    ResumableSampler,
    find_damage,
    list_checkpoints,
    load_checkpoint_naive,
    load_latest,
    save_checkpoint,
    save_checkpoint_naive,
    seed_everything,
)

NUM_RANDOM_KILLS = 24
STEPS_PER_LIFE = 5
SYSTEM_CALLS = ("mkdir", "fsync", "rename", "unlink", "rmdir")
NUM_KILL_POINTS = 30


def train(folder, report, total_steps, pause_after=None, with_checkpoints=True):
    """Train from the last checkpoint to the end, saving each step; report each save that has returned."""
    torch.set_num_threads(1)
    warnings.filterwarnings("error", ".* is damaged")  # it would be a torn one under a good name
    seed_everything(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.3), nn.Linear(5, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    data = ResumableSampler(13, seed=1)
    loader = DataLoader(TensorDataset(torch.linspace(0, 1, 39).reshape(13, 3)), batch_size=2, sampler=data)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "data": data}
    start = step = load_latest(folder, **parts).step if with_checkpoints else 0
    report(f"resumed {step}")
    while step < total_steps:
        for (x,) in data.consume(loader):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            schedule.step()
            step += 1
            if with_checkpoints:
                save_checkpoint(folder, step, keep_last=2, **parts)
                report(f"saved {step}")
            if step - start == pause_after:
                wait_for_the_end()  # so that no life can finish the run before the kills are done
            if step == total_steps:
                break
    torch.save([p.detach() for p in model.parameters()], Path(folder) / "final.pt")


def wait_for_the_end():
    """Wait to be killed, or for the parent's own end: no process may be left behind."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(2)


def fork(function):
    """Run `function(report)` in a forked process; return (its id, the descriptor of its reports)."""
    read_end, write_end = os.pipe()
    if pid := os.fork():
        os.close(write_end)
        return pid, read_end
    try:
        os.close(read_end)
        function(lambda line: os.write(write_end, f"{line}\n".encode()))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


class Life:
    """One life of the run, seen by its parent."""

    def __init__(self, function):
        self.pid, self.descriptor = fork(function)
        self.resumed, self.saved, self.times, self._pending = None, [], [], b""

    def read(self, timeout_seconds):
        """Take in what was reported; return whether the process still can."""
        ready, _, _ = select.select([self.descriptor], [], [], timeout_seconds)
        if not ready:
            raise TimeoutError(f"process {self.pid} is silent")
        chunk = os.read(self.descriptor, 4096)
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            word, step = line.split()
            if word == b"resumed":
                self.resumed = int(step)
            else:
                self.saved.append(int(step))
                self.times.append(time.monotonic())
        return bool(chunk)

    def end(self):
        """Read to the end; return how the process ended: -9 for SIGKILL, as subprocess has it."""
        while self.read(60):
            pass
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def check_nothing_lost(folder, life, last_saved):
    """Raise if the life began before a step whose save had returned, or left a checkpoint that is not whole;
    return the last step saved by now.
    """
    damaged = {str(path): damage for path in list_checkpoints(folder) if (damage := find_damage(path))}
    assert damaged == {}
    if life.resumed is not None and life.resumed < last_saved:
        raise AssertionError(f"step {last_saved} was saved, and the run resumed from {life.resumed}")
    return max([last_saved, *life.saved])


def kill_at_random(folder):
    """Kill lives after 0 to 3 saves and a random part of a step; then let one end."""
    total_steps = NUM_RANDOM_KILLS * STEPS_PER_LIFE + 1
    chance = random.Random(0)
    last_saved, amid_saves = 0, 0
    for _ in range(NUM_RANDOM_KILLS):
        life = Life(lambda report: train(folder, report, total_steps, pause_after=STEPS_PER_LIFE))
        num_saves = chance.choice([0, 2, 3])
        while len(life.saved) < num_saves and life.read(60):
            pass
        step_seconds = (life.times[-1] - life.times[0]) / (len(life.times) - 1) if life.times[1:] else 0.1
        time.sleep(chance.uniform(0, 1.5 * step_seconds))  # the moment is random; nothing waits for it
        os.kill(life.pid, signal.SIGKILL)
        assert life.end() == -signal.SIGKILL
        last_saved = check_nothing_lost(folder, life, last_saved)
        amid_saves += bool(list(folder.glob(".*")))
    return {"kills": NUM_RANDOM_KILLS, "amid saves": amid_saves} | finish(folder, total_steps, last_saved)


def kill_between_calls(folder):
    """Kill each life before its n-th call of the operating system, n from 1: between any two of a save."""
    total_steps = 60
    last_saved, points = 0, []
    for number in range(1, NUM_KILL_POINTS + 1):
        life = Life(lambda report, n=number: train_until_call(n, folder, report, total_steps))
        assert life.end() == -signal.SIGKILL
        last_saved = check_nothing_lost(folder, life, last_saved)
        points.append((folder.parent / "point").read_text())
    return {"points": points} | finish(folder, total_steps, last_saved)


def train_until_call(number, folder, report, total_steps):
    calls = 0

    def counted(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                (folder.parent / "point").write_text(name)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in SYSTEM_CALLS:
        setattr(os, name, counted(name))
    train(folder, report, total_steps)


def finish(folder, total_steps, last_saved):
    life = Life(lambda report: train(folder, report, total_steps))
    assert life.end() == 0
    assert check_nothing_lost(folder, life, last_saved) == total_steps
    whole = folder.parent / "whole"
    whole.mkdir()
    assert Life(lambda report: train(whole, report, total_steps, with_checkpoints=False)).end() == 0
    weights = [torch.load(path / "final.pt", weights_only=True) for path in (folder, whole)]
    return {"equal": all(map(torch.equal, *weights)), "left": sorted(path.name for path in folder.iterdir())}


def kill_amid_a_write(folder):
    """Return what is left of each kind of checkpoint when the kernel stops the second write halfway."""
    outcomes = {}
    for name, save, load in [
        ("naive", save_checkpoint_naive, load_checkpoint_naive),
        ("ours", save_checkpoint, load_latest),
    ]:
        place = folder / name
        for how in (signal.SIG_DFL, signal.SIG_IGN):  # killed by the kernel; told that the file can't grow
            save(place, 1, model=nn.Linear(100, 100))
            life = Life(lambda report, save=save, place=place, how=how: write_too_much(save, place, how))
            ended = life.end()
            try:
                loaded = load(place, model=nn.Linear(100, 100))
                outcome = getattr(loaded, "step", loaded)
            except Exception as error:
                outcome = type(error).__name__
            outcomes[f"{name}, {how.name}"] = [ended, outcome, len(list(folder.glob(f"{name}/.*")))]
    return outcomes


def write_too_much(save, place, how):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, how)
    try:
        save(place, 2, model=nn.Linear(100, 100))
    except (CheckpointError, RuntimeError) as error:
        place.with_suffix(".txt").write_text(str(error))
        os._exit(3)


def run_script(command, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, __file__, command, str(folder)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_killed_at_random_moments_a_run_loses_no_saved_step_and_ends_in_the_same_bits(tmp_path):
    outcome = run_script("kill_at_random", tmp_path)
    assert outcome["kills"] >= 20
    assert outcome["amid saves"] >= 1
    assert outcome["equal"]
    assert outcome["left"] == ["final.pt", "step_00000120", "step_00000121"]


@pytest.mark.slow
def test_killed_between_any_two_calls_of_a_save_a_run_loses_no_saved_step(tmp_path):
    outcome = run_script("kill_between_calls", tmp_path)
    assert set(outcome["points"]) == set(SYSTEM_CALLS)
    assert outcome["equal"]
    assert outcome["left"] == ["final.pt", "step_00000059", "step_00000060"]


def test_killed_amid_a_write_or_on_a_full_disk_the_checkpoint_before_it_survives(tmp_path):
    outcome = run_script("kill_amid_a_write", tmp_path)
    assert outcome["ours, SIG_DFL"] == [-signal.SIGXFSZ, 1, 1]
    assert outcome["ours, SIG_IGN"] == [3, 1, 0]  # an error, and nothing left of the attempt
    message = (tmp_path / "run/ours.txt").read_text()
    assert message.endswith("File too large; step_00000001.1 is still there")
    # The control: overwritten in place, both ways of ending leave the run with nothing.
    for how, ended in [("SIG_DFL", -signal.SIGXFSZ), ("SIG_IGN", 3)]:
        assert outcome[f"naive, {how}"][0] == ended
        assert outcome[f"naive, {how}"][1] not in (1, 2)


if __name__ == "__main__":
    import torch._dynamo  # every optimizer imports it, for seconds: once here, not in each life

    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
