"""Checkpointed layers on real ranks, under DDP and FSDP, against one process without checkpointing."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from coursekit.errors import InputError
from coursekit.parallel import launch, replicate
from coursekit.train import MATMUL_OPS, accumulate_gradients, checkpoint_layers, record_op_dtypes

N_LAYERS, ROWS, D_MODEL, D_FF = 4, 8, 6, 24


class Block(nn.Module):
    """A feed-forward block."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(D_MODEL, D_FF), nn.Linear(D_FF, D_MODEL)

    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x)))


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(N_LAYERS))).double()


def inputs_of():
    return torch.randn(ROWS, D_MODEL, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def one_process():
    """The oracle: the whole batch, all activations kept."""
    model = model_of()
    (model(inputs_of()).square().sum() / ROWS).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def step_on_rank(options, first):
    model = model_of()
    if first == "checkpoint":
        checkpoint_layers(model, **options)
        wrapped = replicate(model)
    else:
        wrapped = replicate(model)
        checkpoint_layers(model, **options)
    rows = inputs_of().chunk(dist.get_world_size())[dist.get_rank()]
    accumulate_gradients(
        lambda x: wrapped(x).square().sum(),
        rows.split(2),
        num_valid=ROWS,
        dp_size=dist.get_world_size(),
        module=wrapped,
    )
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("first", "options"), [("checkpoint", {}), ("ddp", {"save_ops": MATMUL_OPS})])
def test_under_ddp_with_accumulation_the_gradient_is_that_of_one_process(first, options, world_size):
    expected = one_process()
    for gradient in launch(step_on_rank, world_size, options, first):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


def fsdp_step_on_rank(first):
    from torch.distributed.fsdp import fully_shard

    model = model_of()
    if first == "checkpoint":
        checkpointed = checkpoint_layers(model)
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    if first == "fsdp":
        checkpointed = checkpoint_layers(model)
    rows = inputs_of().chunk(dist.get_world_size())[dist.get_rank()]
    with record_op_dtypes() as dtypes:
        (model(rows).square().sum() / rows.shape[0]).backward()
    if first == "checkpoint":
        with pytest.raises(InputError, match="remove the checkpointing before wrapping"):
            checkpointed.remove()
    else:
        checkpointed.remove()
        assert {type(layer).__name__ for layer in model} == {"FSDPBlock"}
    gradient = torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()])
    return gradient, dtypes["aten.addmm"].total()


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", ["checkpoint", "fsdp"])
def test_under_fsdp_the_gradient_is_that_of_one_process_and_layers_are_recomputed(first, world_size):
    expected = one_process()
    for gradient, num_forward_products in launch(fsdp_step_on_rank, world_size, first):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)
        assert num_forward_products == 3 * N_LAYERS
