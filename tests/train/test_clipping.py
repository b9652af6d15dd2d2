"""Clipping against the formula in NumPy, on one process and with parameters spread over two."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from coursekit.errors import InputError
from coursekit.parallel import launch
from coursekit.train import clip_gradients, clip_gradients_naive

EXACT = {"rtol": 1e-12, "atol": 0}


def model_with_gradients(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Linear(2, 2)).double()
    model(torch.randn(4, 3, dtype=torch.float64)).square().sum().mul(scale).backward()
    return model


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def clipped_by_numpy(gradients, max_norm):
    """Return (norm, clipped gradients) from the formula, all gradients in one vector."""
    flat = np.concatenate([gradient.numpy().ravel() for gradient in gradients])
    norm = math.sqrt(math.fsum(flat**2))
    flat = flat * min(1.0, max_norm / (norm + 1e-6))
    sizes = np.cumsum([gradient.numel() for gradient in gradients])[:-1]
    parts = zip(np.split(flat, sizes), gradients, strict=True)
    return norm, [torch.from_numpy(part).view_as(gradient) for part, gradient in parts]


@pytest.mark.parametrize("clip", [clip_gradients, clip_gradients_naive])
@pytest.mark.parametrize("max_norm", [0.1, 1e9])
def test_gradients_are_scaled_to_the_norm_and_left_alone_below_it(clip, max_norm):
    model = model_with_gradients()
    norm, expected = clipped_by_numpy(gradients(model), max_norm)
    returned = clip(model.parameters(), max_norm)
    assert float(returned) == pytest.approx(norm, rel=1e-12)
    torch.testing.assert_close(gradients(model), expected, **EXACT)


def test_clipping_is_by_the_norm_of_all_groups_together():
    model = model_with_gradients()
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model[::2]], lr=1)
    both = [parameter for layer in model[::2] for parameter in layer.parameters()]
    norm, expected = clipped_by_numpy([parameter.grad for parameter in both], 0.1)
    untouched = model[3].weight.grad.clone()
    assert clip_gradients(optimizer, 0.1).item() == pytest.approx(norm, rel=1e-12)
    torch.testing.assert_close([parameter.grad for parameter in both], expected, **EXACT)
    assert torch.equal(model[3].weight.grad, untouched)


def test_control_each_group_by_its_own_norm_is_another_direction():
    model = model_with_gradients()
    _, expected = clipped_by_numpy(gradients(model), 0.1)
    for parameter in model.parameters():
        clip_gradients([parameter], 0.1)
    assert not torch.allclose(model[0].weight.grad, expected[0], rtol=1e-2, atol=0)


def test_an_infinite_limit_only_measures():
    model = model_with_gradients()
    before = gradients(model)
    assert clip_gradients(model, float("inf")) > 0
    torch.testing.assert_close(gradients(model), before, rtol=0, atol=0)


def test_parameters_without_a_gradient_do_not_count():
    model = model_with_gradients()
    model[0].weight.grad = None
    norm, _ = clipped_by_numpy([p.grad for p in model.parameters() if p.grad is not None], 1.0)
    assert clip_gradients(model, 1.0).item() == pytest.approx(norm, rel=1e-12)
    assert clip_gradients(nn.Linear(2, 2), 1.0).item() == 0


def test_the_norm_of_one_tensor_is_told():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients(weight, 1.0).item() == 5


def test_what_becomes_of_gradients_whose_norm_is_not_finite():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([1.0, float("nan")])
    assert clip_gradients(weight, 1.0).isnan()
    assert weight.grad.isnan().all()
    weight.grad = torch.tensor([1.0, float("inf")])
    assert clip_gradients(weight, 1.0).isinf()
    assert weight.grad[0] == 0
    assert weight.grad[1].isnan()


def test_the_error_names_the_parameters_that_are_not_finite_and_scales_nothing():
    model = model_with_gradients()
    model[2].bias.grad[1] = float("inf")
    before = gradients(model)
    with pytest.raises(InputError, match=r"norm is inf: .* NaN or infinity in 2\.bias; skip"):
        clip_gradients(model, 0.1, error_if_nonfinite=True)
    torch.testing.assert_close(gradients(model), before, rtol=0, atol=0)
    with pytest.raises(InputError, match=r"in parameter 3 of shape \(2,\)"):
        clip_gradients(model.parameters(), 0.1, error_if_nonfinite=True)
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model[::2]], lr=1)
    with pytest.raises(InputError, match=r"in group 1, parameter 1 of shape \(2,\)"):
        clip_gradients(optimizer, 0.1, error_if_nonfinite=True)


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan")])
def test_a_limit_that_is_not_positive_is_an_error(max_norm):
    with pytest.raises(InputError, match="max_norm > 0"):
        clip_gradients(model_with_gradients(), max_norm)


def clipped_under_fsdp(part_sharded):
    """Each rank's whole gradients and norm after clipping a model whose gradients are spread over ranks."""
    model = model_with_gradients()
    whole = gradients(model)
    model.zero_grad()
    fully_shard(model[0])
    if not part_sharded:
        fully_shard(model)
    for parameter, gradient in zip(model.parameters(), whole, strict=True):
        if hasattr(parameter, "placements"):
            shard = torch.distributed.tensor.distribute_tensor(
                gradient, parameter.device_mesh, parameter.placements
            )
        parameter.grad = shard if hasattr(parameter, "placements") else gradient
    norm = clip_gradients(model, 0.1)
    clipped = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    return norm, clipped


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("part_sharded", [False, True])
def test_under_fsdp_the_norm_is_of_the_whole_model(part_sharded, world_size):
    norm, expected = clipped_by_numpy(gradients(model_with_gradients()), 0.1)
    for rank_norm, clipped in launch(clipped_under_fsdp, world_size, part_sharded, timeout_seconds=120):
        assert rank_norm.item() == pytest.approx(norm, rel=1e-12)
        torch.testing.assert_close(clipped, expected, **EXACT)


def own_norm_of_each_shard():
    """The famous bug: every rank clips its shard by the norm of that shard."""
    whole = gradients(model_with_gradients())
    shards = [gradient.chunk(2)[dist.get_rank()] for gradient in whole]
    norm = torch.linalg.vector_norm(torch.cat([shard.flatten() for shard in shards]))
    return [shard * min(1.0, 0.1 / (norm + 1e-6)) for shard in shards]


def test_control_each_shard_by_its_own_norm_differs():
    _, expected = clipped_by_numpy(gradients(model_with_gradients()), 0.1)
    parts = zip(*launch(own_norm_of_each_shard, 2, timeout_seconds=120), strict=True)
    whole = [torch.cat(shards) for shards in parts]
    assert not torch.allclose(whole[0], expected[0], rtol=1e-2, atol=0)


def clipped_as_stages():
    """Rank r holds layer 2r alone, as a pipeline stage does."""
    stage = model_with_gradients()[2 * dist.get_rank()]
    return clip_gradients(stage, 0.1, pp_group=dist.group.WORLD), gradients(stage)


def test_pipeline_stages_clip_by_the_norm_of_all_stages():
    model = model_with_gradients()
    norm, expected = clipped_by_numpy([p.grad for layer in model[::2][:2] for p in layer.parameters()], 0.1)
    stages = launch(clipped_as_stages, 2, timeout_seconds=120)
    assert [rank_norm.item() for rank_norm, _ in stages] == pytest.approx([norm, norm], rel=1e-12)
    torch.testing.assert_close([g for _, stage in stages for g in stage], expected, **EXACT)


def nonfinite_on_one_rank():
    stage = model_with_gradients()[2 * dist.get_rank()]
    if dist.get_rank() == 1:
        stage.bias.grad[0] = float("nan")
    try:
        clip_gradients(stage, 0.1, pp_group=dist.group.WORLD, error_if_nonfinite=True)
    except InputError as error:
        return str(error)


def test_every_rank_raises_and_the_one_with_the_nan_names_it():
    first, second = launch(nonfinite_on_one_rank, 2, timeout_seconds=120)
    assert "none in this rank's part" in first
    assert "NaN or infinity in bias" in second


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_clipping_waits_for_no_device():
    model = model_with_gradients().cuda()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.cuda.set_sync_debug_mode("error")
    try:
        norm = clip_gradients(model, 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert norm.item() == pytest.approx(sum(p.numel() for p in model.parameters()) ** 0.5, rel=1e-12)
