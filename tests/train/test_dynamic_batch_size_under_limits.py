"""Steps under real limits of memory, of a CPU process and of a GPU, against the same steps without one."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from coursekit.train import DynamicBatchSize, accumulate_gradients, free_memory, split_into_micro_batches

LIMITED = """
    import json, resource, warnings
    import torch
    from torch import nn
    from coursekit.train import (DoesNotFitError, DynamicBatchSize, accumulate_gradients,
        find_micro_batch_size, repeat_step_until_it_fits_naive, split_into_micro_batches)

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a thread that cannot be started under the limit ends the process
    rows, d_hidden = 2048, 4096  # all rows at once need three tensors of 64 MiB, half the rows 96 MiB
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, d_hidden), nn.Tanh(), nn.Linear(d_hidden, 1)).double()
    inputs = torch.randn(rows, 8, dtype=torch.float64)

    def compute_gradients(micro_batch_size):
        micro_batches = split_into_micro_batches(inputs, micro_batch_size)
        return accumulate_gradients(lambda x: model(x).square().sum(), micro_batches, num_valid=rows)

    def gradient():
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    def error(expected):
        return ((gradient() - expected).norm() / expected.norm()).item()

    compute_gradients(rows)
    expected = gradient()
    model.zero_grad()

    status = open("/proc/self/status").read()
    used = int(status.split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 140 * 2**20,) * 2)

    sizes = DynamicBatchSize(model, micro_batch_size=rows)
    sizes.run(compute_gradients)
    report = {"size": sizes.micro_batch_size, "error": error(expected)}
    _, report["naive_size"] = repeat_step_until_it_fits_naive(compute_gradients, model, micro_batch_size=rows)
    report["naive_error"] = error(expected)
    model.zero_grad()
    found = find_micro_batch_size(compute_gradients, max_size=rows, only_powers_of_two=True)
    report["found"] = found.micro_batch_size
    try:
        DynamicBatchSize(model, micro_batch_size=4).run(lambda size: torch.empty(size, 2**28))
    except DoesNotFitError as failure:
        report["failure"] = str(failure)
    print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS bounds memory on Linux only")
def test_under_a_real_memory_limit_a_step_finishes_smaller_and_right(tmp_path):
    script = tmp_path / "limited.py"
    script.write_text(textwrap.dedent(LIMITED))
    # glibc keeps freed blocks below a bound that it moves; with one that stays they go back to the system
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=250, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["size"] == 1024
    assert report["error"] < 1e-12
    assert report["naive_error"] < 1e-12
    assert report["naive_size"] == report["size"]
    assert report["found"] == report["size"]
    assert "DefaultCPUAllocator: can't allocate memory" in report["failure"]


def gradient_of(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:out of memory:UserWarning")
def test_on_cuda_a_step_finishes_smaller_and_right():
    rows, d_hidden = 4096, 16384  # activations of 512 MiB each if all rows go at once
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, d_hidden), nn.Tanh(), nn.Linear(d_hidden, 1)).double().cuda()
    inputs = torch.randn(rows, 8, dtype=torch.float64, device="cuda")

    def compute_gradients(micro_batch_size):
        micro_batches = split_into_micro_batches(inputs, micro_batch_size)
        return accumulate_gradients(lambda x: model(x).square().sum(), micro_batches, num_valid=rows)

    compute_gradients(512)
    expected = gradient_of(model)
    free_memory()
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**29) / total_bytes)
    try:
        sizes = DynamicBatchSize(model, micro_batch_size=rows)
        sizes.run(compute_gradients)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= sizes.micro_batch_size < rows
    torch.testing.assert_close(gradient_of(model), expected, rtol=1e-10, atol=1e-12)  # other kernels by size
