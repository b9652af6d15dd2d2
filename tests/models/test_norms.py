"""RMS norm written out equals torch's."""

import pytest
import torch

from coursekit.models import GPTConfig, rms_norm_naive
from coursekit.models.norms import make_norm


def norm_of(**options):
    config = GPTConfig(vocab_size=7, max_seq_len=4, d_model=8, n_layers=1, n_heads=2, **options)
    return make_norm(config).double()


def test_written_out_it_equals_torchs():
    norm = norm_of(norm="rmsnorm", norm_eps=1e-3)
    x, norm.weight.data = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(rms_norm_naive(x, norm.weight, eps=1e-3), norm(x), rtol=1e-12, atol=1e-14)


def test_control_epsilon_outside_the_root_is_another_norm():
    norm, x = norm_of(norm="rmsnorm", norm_eps=1e-3), torch.full((1, 8), 0.01, dtype=torch.float64)
    wrong = x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-3)
    assert not torch.allclose(wrong, norm(x), rtol=0.1)


@pytest.mark.parametrize(("options", "shapes"), [({"norm": "rmsnorm"}, 1), ({"bias": False}, 1), ({}, 2)])
def test_only_a_layer_norm_with_bias_has_two_vectors(options, shapes):
    assert len(list(norm_of(**options).parameters())) == shapes
