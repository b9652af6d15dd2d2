"""What nvidia-smi says, and which build of torch runs on which card."""

import sys

import pytest

from coursekit.plan.gpus import nvidia_gpus, parse_nvidia_smi, runs_on, torch_build
from tests.plan.machines import CUDA_12_6, CUDA_13

TURING, AMPERE, ADA, HOPPER, PASCAL, BLACKWELL = (7, 5), (8, 0), (8, 9), (9, 0), (6, 1), (12, 0)


def test_two_cards_are_read():
    text = "NVIDIA A100-SXM4-80GB, 81920, 8.0, 535.161.08\nNVIDIA H100, 81559, 9.0, 550.54.15\n"
    first, second = parse_nvidia_smi(text)
    assert (first.memory_bytes, first.compute_capability) == (81920 * 2**20, (8, 0))
    assert (second.name, second.driver) == ("NVIDIA H100", "550.54.15")


def test_what_the_driver_does_not_say_is_unknown():
    (card,) = parse_nvidia_smi("NVIDIA GB10, [N/A], [N/A], 580.95.05")
    assert (card.memory_bytes, card.compute_capability) == (0, None)
    assert parse_nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the driver.") == []


@pytest.mark.parametrize(
    ("capability", "arches", "runs"),
    [
        (PASCAL, CUDA_12_6, True),  # sm_60 runs on 6.1
        (PASCAL, CUDA_13, False),
        (TURING, CUDA_13, True),
        (ADA, CUDA_13, True),  # sm_86 runs on 8.9
        (AMPERE, ("sm_86",), False),  # not on an older minor version
        (BLACKWELL, CUDA_12_6, False),  # compiled code does not cross major versions
        (BLACKWELL, ("sm_90", "compute_90"), True),  # intermediate code does
        (HOPPER, ("sm_90a",), True),
        (BLACKWELL, ("sm_90a", "compute_90a"), False),
        (PASCAL, (), False),
    ],
)
def test_a_build_runs_where_cudas_rules_say(capability, arches, runs):
    assert runs_on(capability, arches) is runs


def test_without_the_driver_there_are_no_cards(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert nvidia_gpus() == []


def test_the_installed_torch_is_described():
    torch = pytest.importorskip("torch")
    build = torch_build()
    assert build.version == torch.__version__
    assert (build.cuda is None) == (torch.version.cuda is None)
    assert build.device in ("cpu", "cuda", "mps")


def test_without_torch_there_is_no_build(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert torch_build() is None
