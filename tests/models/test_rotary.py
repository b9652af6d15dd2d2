"""Rotary angles and rotations against complex numbers."""

import cmath

import pytest
import torch

from coursekit.models import Rotary, apply_rotary, rotary_angles
from coursekit.parallel import launch


def scores(m, n, head_dim=8):
    """Return the products of a fixed query at position m with a fixed key at position n."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, head_dim, generator=generator, dtype=torch.float64)
    angles = {"theta": 10_000.0, "dtype": torch.float64}
    turned = [Rotary(torch.tensor([position]), head_dim, **angles)(x) for position, x in ((m, q), (n, k))]
    return (turned[0] * turned[1]).sum().item()


def test_pairs_turn_as_complex_numbers():
    positions, x = torch.tensor([0, 1, 5]), torch.randn(1, 1, 3, 4, dtype=torch.float64)
    turned = apply_rotary(x, *rotary_angles(positions, 4, theta=100.0, dtype=torch.float64))
    for row, m in enumerate(positions.tolist()):
        for pair, frequency in enumerate((1.0, 0.1)):  # 100^(-2i/4)
            a, b = x[0, 0, row, 2 * pair : 2 * pair + 2].tolist()
            z = complex(a, b) * cmath.exp(1j * m * frequency)
            assert turned[0, 0, row, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(
                [z.real, z.imag], rel=1e-12
            )


def test_scores_depend_on_the_distance_alone():
    assert scores(7, 4) == pytest.approx(scores(1007, 1004), rel=1e-10)  # angles near 1000 have fewer digits
    assert scores(7, 4) != pytest.approx(scores(7, 5), rel=1e-2)
    assert scores(7, 4) != pytest.approx(scores(4, 7), rel=1e-2)


def mixed_precision_on_rank():
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    seen = []

    class Layer(torch.nn.Linear):
        def forward(self, x, *, rotary, pair):
            seen.append((x.dtype, rotary.cos.dtype, pair[0].dtype))
            return super().forward(x)

    layer = fully_shard(Layer(2, 2), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    rotary = Rotary(torch.arange(3), 4, theta=10_000.0, dtype=torch.float32)
    layer(torch.zeros(1, 2), rotary=rotary, pair=(rotary.cos, rotary.sin))
    return seen


@pytest.mark.slow
def test_fsdp_casts_hidden_states_and_leaves_the_angles():
    [seen] = launch(mixed_precision_on_rank, 1)
    assert seen == [(torch.bfloat16, torch.float32, torch.bfloat16)]  # the pair of tensors is the control


def test_lengths_and_dtypes_are_kept():
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    cos, sin = rotary_angles(torch.arange(5), 8, dtype=torch.float64)
    torch.testing.assert_close(apply_rotary(x, cos, sin).norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)
    assert apply_rotary(x.bfloat16(), cos, sin).dtype == torch.bfloat16
