"""Operators whose backward passes are each other's, on 2 and 4 real gloo processes, in float64."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from coursekit.parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    copy_to_ranks,
    gather_sequence,
    launch,
    scatter_sequence,
    split_sequence,
    sum_over_ranks,
)

RTOL = 1e-12


def two_layers():
    torch.manual_seed(0)
    return nn.Linear(6, 8).double(), nn.Linear(8, 6).double(), torch.randn(2, 4, 6, dtype=torch.float64)


def two_layers_alone():
    first, second, x = two_layers()
    y = second(first(x.requires_grad_()).tanh())
    y.square().sum().backward()
    return y.detach(), x.grad


def summed_in_backward(x, group):
    """The famous bug: g with the transpose of a sum, as `torch.distributed.nn.functional` has it."""
    return copy_to_ranks(sum_over_ranks(x, group), group)


def two_layers_divided(enter=copy_to_ranks, leave=sum_over_ranks, bias_before_the_sum=False):
    first, second, x = two_layers()
    group = dist.group.WORLD
    column = ColumnParallelLinear(first, group)
    row = RowParallelLinear(second, group, leave=leave)
    inside = column(enter(x.requires_grad_(), group)).tanh()
    y = leave(F.linear(inside, row.weight, row.bias), group) if bias_before_the_sum else row(inside)
    y.square().sum().backward()
    return y.detach(), x.grad


def second_derivative():
    """Return the gradient of a gradient's square, through f and g."""
    first, second, x = two_layers()
    group = dist.group.WORLD
    column, row = ColumnParallelLinear(first, group), RowParallelLinear(second, group)
    y = row(column(copy_to_ranks(x.requires_grad_(), group)).tanh())
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x)[0]


def test_the_operators_can_be_differentiated_twice():
    first, second, x = two_layers()
    y = second(first(x.requires_grad_()).tanh())
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(gradient.square().sum(), x)
    for result in launch(second_derivative, 2):
        torch.testing.assert_close(result, expected, rtol=RTOL, atol=1e-13)


def without_f(x, group):
    return x


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_column_and_a_row_parallel_layer_are_two_layers(world_size):
    for result in launch(two_layers_divided, world_size):
        torch.testing.assert_close(result, two_layers_alone(), rtol=RTOL, atol=1e-13)


def test_control_the_oracle_rejects_a_missing_f_and_a_summed_gradient_and_a_bias_on_every_rank():
    y, gradient = two_layers_alone()
    for its_y, its_gradient in launch(two_layers_divided, 2, enter=without_f):
        torch.testing.assert_close(its_y, y, rtol=RTOL, atol=1e-13)
        assert not torch.allclose(its_gradient, gradient)
    for its_y, its_gradient in launch(two_layers_divided, 2, leave=summed_in_backward):
        torch.testing.assert_close(its_y, y, rtol=RTOL, atol=1e-13)
        torch.testing.assert_close(its_gradient, 2 * gradient, rtol=RTOL, atol=1e-13)
    for its_y, _ in launch(two_layers_divided, 2, bias_before_the_sum=True):
        assert not torch.allclose(its_y, y)


def sequence_operators():
    """Return x and its gradient after a division and a gathering, and after a scattered sum."""
    group, rank = dist.group.WORLD, dist.get_rank()
    weights = torch.arange(1.0, 9.0, dtype=torch.float64).view(1, 8, 1)
    x = torch.ones(1, 8, 1, dtype=torch.float64, requires_grad=True)
    whole = gather_sequence(split_sequence(x, group), group)
    # Each rank's part of a loss that is a sum over ranks, as after a column-parallel layer.
    ((rank + 1) * weights * whole).sum().backward()
    terms = torch.full((1, 8, 1), rank + 1.0, dtype=torch.float64, requires_grad=True)
    part = scatter_sequence(terms, group)
    (part * split_sequence(weights, group)).sum().backward()
    return whole.detach().flatten(), x.grad.flatten(), part.detach().flatten(), terms.grad.flatten()


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_sequence_operators_are_each_others_transpose(world_size):
    total = world_size * (world_size + 1) / 2
    weights = torch.arange(1.0, 9.0, dtype=torch.float64)
    for whole, gradient, part, gradient_of_terms in launch(sequence_operators, world_size):
        assert torch.equal(whole, torch.ones(8, dtype=torch.float64))
        assert torch.equal(gradient, total * weights)
        assert torch.equal(part, torch.full((8 // world_size,), total, dtype=torch.float64))
        assert torch.equal(gradient_of_terms, weights)
