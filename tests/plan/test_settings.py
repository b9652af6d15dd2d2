"""Settings to begin with, by machine."""

import dataclasses

import pytest

from coursekit.models import GPTConfig, preset
from coursekit.plan import Gpu, Layout, memory, suggest_settings
from tests.plan.machines import CONTAINER, DESKTOP, MACBOOK, changed


def test_threads_follow_the_quota_not_the_host():
    assert suggest_settings(CONTAINER).threads == 2
    assert suggest_settings(dataclasses.replace(CONTAINER, usable_processors=0.5)).threads == 1
    assert suggest_settings(dataclasses.replace(CONTAINER, usable_processors=3.9)).threads == 3


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bf16"), ((8, 6), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")]
)
def test_precision_follows_the_card(capability, precision):
    card = Gpu("a card", 12 * 2**30, capability, "580.1")
    settings = suggest_settings(changed(gpus=(card,)))
    assert (settings.device, settings.precision) == ("cuda", precision)


def test_without_a_gpu_that_torch_can_use_it_is_the_processor_in_fp32():
    for machine in (CONTAINER, changed(torch=None)):
        settings = suggest_settings(machine)
        assert (settings.device, settings.precision) == ("cpu", "fp32")
        assert settings.memory_bytes == machine.available_memory_bytes


def test_memory_is_that_of_the_device():
    assert suggest_settings(DESKTOP).memory_bytes == 12282 * 2**20
    assert suggest_settings(MACBOOK).device == "mps"


def test_the_micro_batch_is_the_largest_that_is_predicted_to_fit():
    gpt2 = preset("gpt2")
    for machine, recipe in ((DESKTOP, "autocast_18"), (changed(gpus=(), torch=None), "fp32_16")):
        settings = suggest_settings(machine, gpt2)
        size, room = settings.micro_batch_size, 0.8 * settings.memory_bytes
        sizes = {
            b: memory(gpt2, Layout(micro_batch_size=b), seq_len=1024, recipe=recipe).total
            for b in (size, 2 * size)
        }
        assert sizes[size] <= room < sizes[2 * size]


def test_a_model_that_does_not_fit_gets_no_micro_batch_and_a_tiny_one_the_largest():
    assert suggest_settings(DESKTOP, preset("llama3-8b"), seq_len=8192).micro_batch_size == 0
    tiny = GPTConfig(100, 64, d_model=32, n_layers=2, n_heads=2)
    assert suggest_settings(DESKTOP, tiny, seq_len=64).micro_batch_size == 64
    assert suggest_settings(CONTAINER, preset("gpt2")).micro_batch_size == 0
    assert suggest_settings(DESKTOP).micro_batch_size is None
