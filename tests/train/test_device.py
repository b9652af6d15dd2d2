"""Devices are picked, waited for and measured; what is not there is an error, never a silent CPU."""

import pytest
import torch

from coursekit.errors import InputError
from coursekit.train import measure_peak_memory, pick_device, synchronize

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_best_device_of_this_machine_is_picked():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device().type == best
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_gpu_is_an_error_not_the_cpu():
    with pytest.raises(InputError, match="the device is not there: expected cpu"):
        pick_device("cuda")


def test_waiting_for_the_cpu_does_nothing():
    assert synchronize("cpu") is None


def test_peak_memory_of_the_cpu_points_to_saved_tensors():
    with pytest.raises(InputError, match="measure_saved_tensors"), measure_peak_memory("cpu"):
        pass


@pytest.mark.gpu
@needs_cuda
def test_peak_memory_on_cuda_counts_what_was_freed_again():
    device = pick_device("cuda")
    kept = torch.ones(1 << 20, device=device)
    with measure_peak_memory(device) as memory:
        (torch.ones(1 << 20, device=device) + 1).sum()
    assert memory.before_bytes >= kept.nbytes
    assert 2 * kept.nbytes <= memory.added_bytes < 2.1 * kept.nbytes


@pytest.mark.gpu
@needs_cuda
def test_a_gpu_beyond_the_last_is_an_error():
    with pytest.raises(InputError, match="no such GPU"):
        pick_device(f"cuda:{torch.cuda.device_count()}")
