"""Phases, memory, utilization, and reading scalars: right, and without a wait that nobody asked for."""

import time

import psutil
import pytest
import torch

from coursekit.errors import InputError
from coursekit.train import PhaseTimer, model_flops_utilization, peak_memory_bytes, start_reading

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_mfu_is_the_papers_number():
    # Chowdhery et al. 2022, table 3: 238.3 K tokens/s on 6,144 TPU v4 chips of 275 TFLOP/s, 46.2 % MFU.
    # 118 layers of 48 heads of 256 dims, 2,048 tokens; attention adds 12 · L · H · Q · T operations a token.
    flops_per_token = 6 * 540.35e9 + 12 * 118 * 48 * 256 * 2048
    mfu = model_flops_utilization(
        238_300, flops_per_token=flops_per_token, peak_flops_per_second=6144 * 275e12
    )
    assert mfu == pytest.approx(0.462, abs=0.0005)


def test_mfu_without_a_peak_is_an_error():
    with pytest.raises(InputError, match="flops a second > 0, got 0"):
        model_flops_utilization(1.0, flops_per_token=1.0, peak_flops_per_second=0)


def test_phases_add_up_by_name_and_are_forgotten_when_taken():
    timer = PhaseTimer()
    start = time.perf_counter()
    for _ in range(2):
        with timer.phase("data"):
            busy(0.01)
        timer.phase("forward")(busy)(0.005)
    total = time.perf_counter() - start
    seconds = timer.take()()
    assert seconds["data"] >= 0.02
    assert seconds["forward"] >= 0.01
    assert sum(seconds.values()) <= total
    assert timer.take()() == {}


def test_a_wrapped_function_returns_what_it_did_and_is_timed_when_it_raises():
    timer = PhaseTimer()
    assert timer.phase("forward")(max)(3, 5) == 5
    with pytest.raises(TypeError):
        timer.phase("backward")(max)(3, "x")
    assert timer.take()().keys() == {"forward", "backward"}


def test_only_the_wait_for_an_item_is_timed():
    timer = PhaseTimer()

    def loader():
        busy(0.01)
        yield 1

    for item in timer.iterate("data", loader()):
        assert item == 1
        busy(0.1)
    assert 0.01 <= timer.take()()["data"] < 0.1


def test_scalars_are_read_in_order_whatever_their_dtype():
    scalars = [
        torch.tensor(1.5),
        torch.tensor(2, dtype=torch.int64),
        torch.tensor([3.0], dtype=torch.bfloat16),
    ]
    assert start_reading(scalars)() == [1.5, 2, 3.0]
    assert start_reading([])() == []


def test_peak_memory_of_the_process_is_in_bytes_and_no_less_than_what_it_has_now():
    resident = psutil.Process().memory_info().rss
    assert 0.9 * resident <= peak_memory_bytes() <= 64 * resident


@pytest.mark.gpu
@needs_cuda
def test_on_cuda_phases_are_timed_by_events_and_scalars_read_by_one_copy():
    timer = PhaseTimer("cuda")
    x = torch.ones(2048, 2048, device="cuda")
    with timer.phase("forward"):
        for _ in range(20):
            x = x @ x / 2048
    read = start_reading([x[0, 0], x[1, 1].half(), torch.tensor(7.0)])
    take = timer.take()
    assert read() == [1.0, 1.0, 7.0]
    assert take()["forward"] > 0
    assert peak_memory_bytes("cuda") >= x.nbytes
