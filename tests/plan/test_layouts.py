"""The ranking: complete, in order, and right about why each other layout loses."""

import dataclasses
import itertools
import math

import pytest

from coursekit.errors import InputError
from coursekit.models.presets import preset
from coursekit.parallel.pipeline_schedules import interleaved_schedule
from coursekit.plan.cluster import Cluster
from coursekit.plan.layout import Layout
from coursekit.plan.layouts import rank_layouts
from coursekit.plan.memory_per_device import memory
from coursekit.plan.step_time import step_seconds

LLAMA_8B = preset("llama3-8b")


def mesh(each):
    layout = each.layout
    return layout.dp_size, layout.tp_size, layout.pp_size, layout.cp_size


def rank(shape=LLAMA_8B, cluster=None, **options):
    options = {"global_batch_tokens": 2**19, "seq_len": 8192, "recipe": "mixed_18", **options}
    return rank_layouts(shape, cluster or Cluster(), **options)


def test_every_mesh_of_the_devices_is_there_once():
    sizes = [1, 2, 4, 8]
    wanted = {(dp, tp, pp, 1) for dp, tp, pp in itertools.product(sizes, repeat=3) if dp * tp * pp == 8}
    got = [mesh(each) for each in rank()]
    assert len(got) == len(set(got))
    assert set(got) == wanted


def test_the_order_is_by_time_then_by_what_is_missing_then_the_impossible():
    ranked = rank(preset("llama3-70b"), Cluster(4), global_batch_tokens=2**18)
    kinds = [0 if each.fits else 1 if each.memory else 2 for each in ranked]
    assert kinds == sorted(kinds)
    assert set(kinds) == {0, 1, 2}
    seconds = [each.seconds for each in ranked if each.fits]
    sizes = [each.bytes for each in ranked if each.memory and not each.fits]
    assert seconds == sorted(seconds)
    assert sizes == sorted(sizes)


def test_what_is_said_of_a_layout_is_what_memory_and_step_seconds_say():
    for each in rank():
        assert each.memory.parts == memory(LLAMA_8B, each.layout, seq_len=8192, recipe="mixed_18").parts
        step = step_seconds(LLAMA_8B, each.layout, Cluster(), seq_len=8192, recipe="mixed_18")
        assert each.step.parts == step.parts
        assert each.fits == (each.bytes <= 0.9 * 80 * 2**30)
        assert each.layout.global_batch_size * 8192 == 2**19


def test_no_options_of_the_best_mesh_are_quicker_and_fit():
    best = rank()[0]
    layout, per_copy = best.layout, 2**19 // 8192 // best.layout.dp_size
    for zero, size, kept, stages in itertools.product(
        range(4), (1, 2, 4), ("none", "selective", "full"), (1, 2)
    ):
        if per_copy % size or (stages > 1 and (layout.pp_size == 1 or (per_copy // size) % layout.pp_size)):
            continue
        other = dataclasses.replace(
            layout, zero_stage=zero, micro_batch_size=size, grad_accum_steps=per_copy // size,
            checkpointing=kept, schedule="interleaved" if stages > 1 else "1f1b", stages_per_rank=stages,
        )  # fmt: skip
        fits = memory(LLAMA_8B, other, seq_len=8192, recipe="mixed_18").total <= 0.9 * 80 * 2**30
        seconds = step_seconds(LLAMA_8B, other, Cluster(), seq_len=8192, recipe="mixed_18").total
        assert not fits or seconds >= best.seconds * (1 - 1e-12)


def test_the_winner_says_what_it_waits_for_and_a_loser_what_makes_it_slower():
    ranked = rank(preset("llama3-70b"), Cluster(64), global_batch_tokens=2**22)
    assert ranked[0].why.startswith("computes ")
    best = ranked[0].step
    for each in ranked[1:]:
        if not each.fits:
            continue
        ratio = each.seconds / ranked[0].seconds
        assert each.why.startswith(f"{ratio:.2f} × the time" if ratio >= 1.005 else f"{ratio - 1:.1%} slower")
        longer = {name: each.step[name] - best[name] for name in best}
        part = max(longer, key=longer.get)
        word = {"bubble": "bubble", "recompute": "again", "tensor": "tensor", "data": "gradients"}.get(
            part, ""
        )
        assert word in each.why


def test_what_does_not_fit_says_by_how_much_and_what_is_largest():
    ranked = rank(preset("llama3-70b"), Cluster(1), global_batch_tokens=2**16)
    each = next(r for r in ranked if not r.fits and r.memory)
    assert "does not fit" in each.why
    assert f"needs {each.bytes / 2**30:.0f} GiB, may use 72.0 GiB" in each.why
    largest = max(each.memory, key=each.memory.parts.get)
    assert largest.replace("_", " ") in each.why


def test_what_does_not_divide_says_which_number():
    ranked = rank(preset("llama3-70b"), Cluster(2), global_batch_tokens=2**16)
    reasons = {mesh(each): each.why for each in ranked}
    assert "n_kv_heads" in reasons[1, 16, 1, 1]
    assert "8 sequences does not divide among 16 groups" in reasons[16, 1, 1, 1]


def test_a_sequence_that_tensor_parallel_ranks_cannot_share_makes_a_mesh_impossible_not_the_ranking():
    # 96 heads divide by three, 2048 tokens do not, which sequence parallelism needs.
    ranked = rank(preset("gpt3-175b"), Cluster(3), global_batch_tokens=96 * 2048, seq_len=2048)
    reasons = {mesh(each): each.why for each in ranked}
    assert "seq_len does not divide" in reasons[8, 3, 1, 1]
    options = {"global_batch_tokens": 96 * 2048, "seq_len": 2048, "fixed": {"sequence_parallel": False}}
    assert any(
        each.layout.tp_size == 3 and each.memory for each in rank(preset("gpt3-175b"), Cluster(3), **options)
    )


def test_tensor_parallelism_over_nodes_is_named_as_the_reason():
    shape = dataclasses.replace(preset("llama3-70b"), n_kv_heads=64)
    ranked = rank(shape, Cluster(4, inter_bytes_per_second=5e9), global_batch_tokens=2**20)
    assert any("tp=16 leaves the node" in each.why for each in ranked)


def test_long_sequences_are_divided_and_short_ones_are_not():
    shape = dataclasses.replace(LLAMA_8B, max_seq_len=131_072)
    assert {each.layout.cp_size for each in rank(shape, seq_len=131_072, global_batch_tokens=2**20)} == {
        1,
        2,
        4,
        8,
    }
    assert {each.layout.cp_size for each in rank()} == {1}


def test_what_is_decided_already_is_kept():
    ranked = rank(fixed={"tp_size": 4, "zero_stage": 1, "checkpointing": "full"})
    assert {each.layout.tp_size for each in ranked} == {4}
    assert {each.layout.checkpointing for each in ranked} == {"full"}
    assert {each.layout.zero_stage for each in ranked} == {1}
    assert len(rank(fixed={"tp_size": 4, "dp_size": 2})) == 1


@pytest.mark.parametrize("size", [2, 3, 64])
def test_a_micro_batch_that_is_decided_keeps_the_batch_or_makes_a_mesh_impossible(size):
    ranked = rank(fixed={"micro_batch_size": size})
    for each in ranked:
        per_copy = 64 // each.layout.dp_size
        assert (each.memory is None) == bool(per_copy % size)
        if each.memory:
            assert (each.layout.micro_batch_size, each.layout.global_batch_size) == (size, 64)
    assert any("do not divide" in each.why for each in ranked) == (size != 2)


def test_stages_a_rank_that_are_decided_leave_only_pipelines():
    ranked = rank(fixed={"stages_per_rank": 2})
    possible = [each.layout for each in ranked if each.memory]
    assert possible
    assert {(layout.schedule, layout.stages_per_rank) for layout in possible} == {("interleaved", 2)}
    assert min(layout.pp_size for layout in possible) == 2


@pytest.mark.parametrize("pp_size", [2, 3, 4])
def test_an_interleaved_pipeline_is_planned_where_its_schedule_can_be_made_and_nowhere_else(pp_size):
    for m in range(1, 13):
        layout = Layout(pp_size=pp_size, grad_accum_steps=m, schedule="interleaved", stages_per_rank=2)
        if m % pp_size == 0:
            interleaved_schedule(pp_size, m, stages_per_rank=2)
            memory(LLAMA_8B, layout, seq_len=8192)
            continue
        with pytest.raises(InputError, match=f"multiple of {pp_size}"):
            interleaved_schedule(pp_size, m, stages_per_rank=2)
        with pytest.raises(InputError, match=f"multiple of pp_size={pp_size}"):
            memory(LLAMA_8B, layout, seq_len=8192)


def test_wrong_questions_are_refused():
    with pytest.raises(InputError, match="multiple of 8192"):
        rank(global_batch_tokens=10_000)
    for unknown in ("tensor_size", "grad_accum_steps", "schedule"):
        with pytest.raises(InputError, match=unknown):
            rank(fixed={unknown: 4})
    with pytest.raises(InputError, match="tp_size=3"):
        rank(fixed={"tp_size": 3})


def test_the_limit_of_memory_decides():
    # The control: the same question with little memory has another answer, and with almost none no answer.
    roomy, tight, none = (rank(cluster=Cluster(usable_memory=share)) for share in (0.9, 0.5, 0.05))
    assert roomy[0].layout != tight[0].layout
    assert tight[0].seconds > roomy[0].seconds
    assert not any(each.fits for each in none)
    assert all(math.isfinite(each.bytes) and "does not fit" in each.why for each in none)
