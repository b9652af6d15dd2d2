"""Attention over a sequence that 2 and 4 real gloo processes share, against one process, in float64."""

import functools

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from coursekit.parallel import (
    count_communication,
    gather_attention,
    launch,
    ring_attention,
    sequence_indices,
    ulysses_attention,
)

from .sharded_gpt import (
    RTOL,
)

BATCH_SIZE, NUM_TOKENS, HEAD_DIM = 2, 16, 4
METHODS = {"ring": ring_attention, "gather": gather_attention, "ulysses": ulysses_attention}
# Method, zigzag, query heads, key heads
CASES = [
    ("ring", False, 4, 4),
    ("ring", True, 4, 4),
    ("ring", True, 6, 3),
    ("gather", False, 4, 4),
    ("gather", True, 6, 3),
    ("ulysses", False, 4, 4),
    ("ulysses", False, 8, 4),
]


def whole_tensors(num_heads, num_kv_heads, dtype=torch.float64):
    """Return q, k, v of the whole sequence, and what the result's gradient is."""
    generator = torch.Generator().manual_seed(0)
    heads = num_heads, num_kv_heads, num_kv_heads, num_heads
    return [torch.randn(BATCH_SIZE, h, NUM_TOKENS, HEAD_DIM, generator=generator).to(dtype) for h in heads]


def attention_alone(*heads):
    """The oracle: torch's attention; return result and gradients of q, k, v."""
    q, k, v, grad = whole_tensors(*heads)
    for x in (q, k, v):
        x.requires_grad_()
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    y.backward(grad)
    return y.detach(), q.grad, k.grad, v.grad


def attend_on_rank(method, zigzag, *heads, dtype=torch.float64):
    """Return this rank's positions, its part of the same four tensors, and what it communicated."""
    mine = sequence_indices(NUM_TOKENS, cp_rank=dist.get_rank(), cp_size=dist.get_world_size(), zigzag=zigzag)
    q, k, v, grad = (x[:, :, mine] for x in whole_tensors(*heads, dtype=dtype))
    for x in (q, k, v):
        x.requires_grad_()
    options = {} if method == "ulysses" else {"zigzag": zigzag}
    with count_communication() as forward:
        y = METHODS[method](q, k, v, group=dist.group.WORLD, **options)
    with count_communication() as backward:
        y.backward(grad)
    return mine, (y.detach(), q.grad, k.grad, v.grad), (forward, backward)


def attend_in_all_ways():
    return {case: attend_on_rank(*case) for case in CASES}


@functools.cache
def attended(world_size):
    return launch(attend_in_all_ways, world_size)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_and_gradients_equal_attention_on_one_process(case, world_size):
    expected = attention_alone(*case[2:])
    for on_rank in attended(world_size):
        mine, tensors, _ = on_rank[case]
        for tensor, whole in zip(tensors, expected, strict=True):
            torch.testing.assert_close(tensor, whole[:, :, mine], rtol=RTOL, atol=1e-13)


def bytes_of(num_heads, world_size):
    return 8 * BATCH_SIZE * num_heads * (NUM_TOKENS // world_size) * HEAD_DIM


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_ring_sends_keys_and_values_once_round_and_with_their_gradients_home(world_size):
    part = bytes_of(4, world_size)
    for on_rank in attended(world_size):
        forward, backward = on_rank["ring", True, 4, 4][2]
        assert forward.payload_bytes == dict.fromkeys(["send", "recv"], 2 * part * (world_size - 1))
        assert backward.payload_bytes == dict.fromkeys(["send", "recv"], 2 * part * (2 * world_size - 1))


@pytest.mark.parametrize("world_size", [2, 4])
def test_gathering_sends_keys_and_values_in_one_call_each(world_size):
    whole = world_size * bytes_of(3, world_size)
    for on_rank in attended(world_size):
        forward, backward = on_rank["gather", True, 6, 3][2]
        assert forward.calls == {"all_gather": 2}
        assert forward.payload_bytes == {"all_gather": 2 * whole}
        assert backward.calls == {"reduce_scatter": 2}
        assert backward.payload_bytes == {"reduce_scatter": 2 * whole}


@pytest.mark.parametrize("world_size", [2, 4])
def test_ulysses_sends_every_head_there_and_back(world_size):
    payload = 2 * bytes_of(8, world_size) + 2 * bytes_of(4, world_size)
    for on_rank in attended(world_size):
        for counted in on_rank["ulysses", False, 8, 4][2]:
            assert counted.calls == {"all_to_all": 4}
            assert counted.payload_bytes == {"all_to_all": payload}
            assert counted.ring_bytes == pytest.approx(payload * (world_size - 1) / world_size)


def flops_of_ring(zigzag):
    with FlopCounterMode(display=False) as counter:
        attend_on_rank("ring", zigzag, 4, 4)
    return counter.get_total_flops()


def test_zigzag_gives_all_ranks_the_same_work_and_contiguous_parts_do_not():
    """In blocks of (s/2)² scores: rank r has 4 (r + 1), or with zigzag 2 N + 1."""
    contiguous, balanced = (launch(flops_of_ring, 4, zigzag) for zigzag in (False, True))
    assert [flops // contiguous[0] for flops in contiguous] == [1, 2, 3, 4]
    assert set(balanced) == {contiguous[0] // 4 * (2 * 4 + 1)}


def average_of_parts():
    """The famous bug: attention over each rank's keys, averaged without their weights."""
    mine = sequence_indices(NUM_TOKENS, cp_rank=dist.get_rank(), cp_size=2)
    q, k, v, _ = whole_tensors(4, 4)
    parts = [
        F.scaled_dot_product_attention(
            q[:, :, mine], k[:, :, theirs], v[:, :, theirs], attn_mask=mine[:, None] >= theirs
        )
        for theirs in torch.arange(NUM_TOKENS).chunk(2)
        if theirs[0] <= mine[0]
    ]
    return torch.stack(parts).mean(0)


def test_control_the_oracle_rejects_parts_averaged_without_their_weights():
    expected = attention_alone(4, 4)[0]
    first, second = launch(average_of_parts, 2)
    torch.testing.assert_close(first, expected[:, :, :8], rtol=RTOL, atol=1e-13)  # it sees one part only
    assert not torch.allclose(second, expected[:, :, 8:], rtol=1e-2)


def test_control_the_oracle_rejects_a_layout_that_the_attention_was_not_told():
    expected = attention_alone(4, 4)[0]
    for mine, tensors, _ in launch(zigzag_parts_as_if_contiguous, 2):
        assert not torch.allclose(tensors[0], expected[:, :, mine], rtol=1e-2)


def zigzag_parts_as_if_contiguous():
    mine = sequence_indices(NUM_TOKENS, cp_rank=dist.get_rank(), cp_size=2, zigzag=True)
    q, k, v, _ = (x[:, :, mine] for x in whole_tensors(4, 4))
    return mine, [ring_attention(q, k, v, group=dist.group.WORLD)], None


def sharp_tensors(dtype):
    """q, k, v and the result's gradient for 64 tokens, rounded to bfloat16, with scores of up to about 50."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(2, 4, 64, 8, generator=generator).bfloat16() for _ in range(4))
    return [x.to(dtype).requires_grad_() for x in (4 * q, k, v)] + [grad.to(dtype)]


def sharp_attention_alone(dtype):
    q, k, v, grad = sharp_tensors(dtype)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y.backward(grad)
    return [x.detach().double() for x in (y, q.grad, k.grad, v.grad)]


def sharp_attention_on_rank(bug):
    """Return this rank's positions and its part of the same four, by a ring with one of two bugs or none."""
    from coursekit.parallel import ring

    if bug == "scores in bfloat16":
        scores = ring._scores
        ring._scores = lambda *what: scores(*what).bfloat16().float()
    elif bug == "parts merged in bfloat16":
        merge = ring._merge
        ring._merge = lambda *what: tuple(x.bfloat16().float() for x in merge(*what))
    mine = sequence_indices(64, cp_rank=dist.get_rank(), cp_size=dist.get_world_size(), zigzag=True)
    q, k, v, grad = (x.detach()[:, :, mine].requires_grad_() for x in sharp_tensors(torch.bfloat16))
    y = ring_attention(q, k, v, group=dist.group.WORLD, zigzag=True)
    y.backward(grad)
    return mine, [y.detach(), q.grad, k.grad, v.grad]


def sums_of_squares(tensors, others):
    return torch.stack([(x - y).square().sum() for x, y in zip(tensors, others, strict=True)])


def errors_to_torchs(bug=None):
    """Root mean squares of the ring's errors in bfloat16, over those of torch's fused attention on one
    process, of the result and of the three gradients.
    """
    exact, alone = sharp_attention_alone(torch.float64), sharp_attention_alone(torch.bfloat16)
    squares = torch.zeros(4, dtype=torch.float64)
    for mine, parts in launch(sharp_attention_on_rank, 4, bug):
        assert {part.dtype for part in parts} == {torch.bfloat16}
        squares += sums_of_squares(parts, [x[:, :, mine] for x in exact])
    of_torch = sums_of_squares(alone, exact)
    return (squares / of_torch).sqrt().tolist()


def test_in_bfloat16_the_ring_is_about_as_close_as_torch():
    assert max(errors_to_torchs()) < 2


@pytest.mark.parametrize("bug", ["scores in bfloat16", "parts merged in bfloat16"])
def test_control_a_ring_that_rounds_on_its_way_is_not(bug):
    assert max(errors_to_torchs(bug)) > 2.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_gpus_results_and_gradients_equal_one_process(case):
    expected = attention_alone(*case[2:])
    world_size = 2 if torch.cuda.device_count() >= 2 else 1
    for mine, tensors in launch(attend_on_gpu, world_size, *case, backend="nccl"):
        for tensor, whole in zip(tensors, expected, strict=True):
            torch.testing.assert_close(tensor, whole[:, :, mine], rtol=1e-9, atol=1e-11)  # other kernels


def attend_on_gpu(method, zigzag, *heads):
    mine = sequence_indices(NUM_TOKENS, cp_rank=dist.get_rank(), cp_size=dist.get_world_size(), zigzag=zigzag)
    q, k, v, grad = (x[:, :, mine].cuda() for x in whole_tensors(*heads))
    for x in (q, k, v):
        x.requires_grad_()
    options = {} if method == "ulysses" else {"zigzag": zigzag}
    y = METHODS[method](q, k, v, group=dist.group.WORLD, **options)
    y.backward(grad)
    return mine, [x.detach().cpu() for x in (y, q.grad, k.grad, v.grad)]
