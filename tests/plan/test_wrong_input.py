"""Mistakes that gave a plan of nothing, or an error about something else: each is an error by name."""

import math

import pytest

from coursekit.errors import InputError
from coursekit.models import preset
from coursekit.plan import (
    Cluster,
    ExpertLayers,
    Layout,
    activations,
    communication,
    flops_per_token,
    memory,
    rank_layouts,
    step_seconds,
)

GPT2 = preset("gpt2")


def rank(cluster=None, **options):
    given = {"global_batch_tokens": 2**19, "seq_len": 1024, **options}
    return rank_layouts(GPT2, cluster or Cluster(), **given)


CALLS = {
    "half a part": (lambda: Layout(tp_size=2.0), "a whole tp_size >= 1, got 2.0"),
    "text for a size": (lambda: Layout(dp_size="8"), "a whole dp_size >= 1, got '8'"),
    "NaN steps": (lambda: Layout(grad_accum_steps=math.nan), "a whole grad_accum_steps >= 1, got nan"),
    "half a choice": (lambda: ExpertLayers(8, top_k=1.5), "a whole top_k >= 1, got 1.5"),
    "experts as text": (lambda: ExpertLayers("8"), "a whole n_experts >= 1, got '8'"),
    "no tokens": (lambda: memory(GPT2, seq_len=0), "a whole seq_len >= 1, got 0"),
    "fewer than none": (lambda: flops_per_token(GPT2, seq_len=-1), "a whole seq_len >= 1, got -1"),
    "a stage too many": (lambda: memory(GPT2, seq_len=8, stage=1), "no such stage: expected 0 to 0, got 1"),
    "a stage before": (lambda: activations(GPT2, seq_len=8, stage=-1), "a whole stage >= 0, got -1"),
    "a stage sending": (lambda: communication(GPT2, Layout(), seq_len=8, stage=3), "no such stage"),
    "a stage working": (
        lambda: step_seconds(GPT2, Layout(dp_size=8), Cluster(), seq_len=8, stage=1),
        "no such stage",
    ),
    "a name for a shape": (lambda: memory("gpt2", seq_len=8), r"a GPTConfig, got 'gpt2'; .*preset\(name\)"),
    "a number for a layout": (lambda: memory(GPT2, 8, seq_len=8), "a Layout, got 8"),
    "some checkpointing": (
        lambda: flops_per_token(GPT2, checkpointing="some"),
        "'none' or 'selective' or 'full', got 'some'",
    ),
    "a name for a cluster": (lambda: rank("8 H100"), "a Cluster, got '8 H100'"),
    "no sequence": (lambda: rank(seq_len=0), "a whole seq_len >= 1, got 0"),
    "a size of 0": (lambda: rank(fixed={"tp_size": 0}), "a whole tp_size >= 1, got 0"),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistake_is_an_error_by_name(mistake):
    call, message = CALLS[mistake]
    with pytest.raises(InputError, match=message):
        call()
