"""Attention written out and by torch's kernels, held against a loop over single queries."""

import math

import pytest
import torch

from coursekit.models import causal_attention, naive_attention

RTOL = 1e-12


def qkv(num_queries=7, num_keys=7, n_heads=4, n_kv_heads=4, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.float64, "generator": generator} | options
    q = torch.randn(2, n_heads, num_queries, 6, **options)
    k, v = (torch.randn(2, n_kv_heads, num_keys, 6, **options) for _ in "kv")
    return q, k, v


def reference_attention(q, k, v, causal=True):
    """The oracle: one batch row, one head, one query at a time."""
    out = torch.empty_like(q)
    num_queries, num_keys = q.shape[2], k.shape[2]
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            shared = head * k.shape[1] // q.shape[1]
            for t in range(num_queries):
                seen = num_keys - num_queries + t + 1 if causal else num_keys
                scores = (k[row, shared, :seen] * q[row, head, t]).sum(-1) / math.sqrt(q.shape[-1])
                weights = scores.exp() / scores.exp().sum()
                out[row, head, t] = (weights[:, None] * v[row, shared, :seen]).sum(0)
    return out


SHAPES = [(7, 7), (1, 7), (3, 7), (1, 1)]


@pytest.mark.parametrize("attention", [naive_attention, causal_attention])
@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_both_equal_a_loop_over_queries(attention, num_queries, num_keys, n_kv_heads):
    tensors = qkv(num_queries, num_keys, n_kv_heads=n_kv_heads)
    torch.testing.assert_close(attention(*tensors), reference_attention(*tensors), rtol=RTOL, atol=1e-14)


def test_without_mask_every_query_sees_every_key():
    tensors = qkv(n_kv_heads=2)
    expected = reference_attention(*tensors, causal=False)
    torch.testing.assert_close(naive_attention(*tensors, causal=False), expected, rtol=RTOL, atol=1e-14)


@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_gradients_of_both_are_equal(n_kv_heads):
    gradients = []
    for attention in (naive_attention, causal_attention):
        tensors = [tensor.requires_grad_() for tensor in qkv(n_kv_heads=n_kv_heads)]
        attention(*tensors).square().sum().backward()
        gradients.append([tensor.grad for tensor in tensors])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=RTOL, atol=1e-13)


def upper_left_mask(q, k, v):
    """The famous bug: with cached keys, `is_causal=True` gives the last query the first keys alone."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def interleaved_heads(q, k, v):
    """The other bug: head i reads key head i mod g, and not its neighbours'."""
    k, v = (x.repeat(1, q.shape[1] // x.shape[1], 1, 1) for x in (k, v))
    return naive_attention(q, k, v)


def unscaled(q, k, v):
    return naive_attention(q * math.sqrt(q.shape[-1]), k, v)


@pytest.mark.parametrize("bug", [upper_left_mask, interleaved_heads, unscaled])
def test_control_the_oracle_rejects(bug):
    tensors = qkv(3, 7, n_kv_heads=4 if bug is upper_left_mask else 2)
    assert not torch.allclose(bug(*tensors), reference_attention(*tensors), rtol=1e-2, atol=1e-2)


def test_dropout_drops_weights():
    q, k, v = qkv()
    dropped = causal_attention(q, k, torch.ones_like(v), dropout_p=0.5)
    assert dropped.min() < 0.5  # rows of weights no longer add up to 1
    torch.testing.assert_close(causal_attention(q, k, torch.ones_like(v)), torch.ones_like(q))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
def test_cuda_kernels_in_half_precision_agree_to_its_precision(num_queries, num_keys, n_kv_heads):
    q, k, v = qkv(num_queries, num_keys, n_kv_heads=n_kv_heads)
    half = causal_attention(*(tensor.cuda().bfloat16() for tensor in (q, k, v)))
    torch.testing.assert_close(half.cpu().double(), reference_attention(q, k, v), rtol=0.03, atol=0.03)
