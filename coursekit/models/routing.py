"""The router of a mixture of experts: who goes where, who finds no place, which losses keep it even."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole


class Routing(NamedTuple):
    """Where n tokens go: k choices each among E experts. Tensors on the tokens' device; none was waited for.

    Args:
        logits: of the router (n, E), in float32 or wider.
        experts: the chosen ones (n, k), the likeliest first.
        gates: weight of each choice in the sum (n, k).
        places: place of each choice in its expert's queue (n, k), from 0. First choices of all tokens
            stand before second ones, earlier tokens before later ones.
        capacity: places that an expert has; choices behind them are dropped. None drops nothing.
    """

    logits: Float[Tensor, "n e"]
    experts: Int[Tensor, "n k"]
    gates: Float[Tensor, "n k"]
    places: Int[Tensor, "n k"]
    capacity: int | None

    @property
    def kept(self) -> Bool[Tensor, "n k"]:
        """Whether each choice found a place."""
        capacity = len(self.places) if self.capacity is None else self.capacity
        return self.places < capacity

    @property
    def num_dropped(self) -> Int[Tensor, ""]:
        """Number of choices, of n k, that found no place."""
        return (~self.kept).sum()

    @property
    def load(self) -> Int[Tensor, " e"]:
        """Number of choices that fell on each expert, dropped ones included."""
        return F.one_hot(self.experts.flatten(), self.logits.shape[-1]).sum(0)


class Router(nn.Module):
    """Chooses k of E experts for each token.

    p = softmax(W x), and the gates are the k largest p, divided by their sum if k > 1. With k = 1 that
    quotient would be the constant 1, and no gradient of the loss would reach the router.

    Args:
        d_model: width of x.
        n_experts: E.
        top_k: k.
        capacity_factor: an expert takes ceil(capacity_factor n k / E) choices of n tokens; 1 is room for
            an even spread, None for any.
    Raises: InputError if k is not in 1 … E, or for a factor that is not above 0.
    Source: Fedus et al. 2021, Switch Transformer, equations 1 to 3, and section 2.4 for float32
        (https://arxiv.org/abs/2101.03961); Jiang et al. 2024, Mixtral, section 2.1, for k > 1
        (https://arxiv.org/abs/2401.04088); Lepikhin et al. 2020, GShard, algorithm 1, for first choices
        before second ones (https://arxiv.org/abs/2006.16668).
    """

    def __init__(
        self, d_model: int, n_experts: int, *, top_k: int, capacity_factor: float | None = None
    ) -> None:
        super().__init__()
        check_whole("wrong router", n_experts=n_experts, top_k=top_k)
        if top_k > n_experts:
            raise InputError("wrong top_k", expected=f"1 to n_experts={n_experts}", got=top_k)
        if capacity_factor is not None and not 0 < capacity_factor < math.inf:
            raise InputError("wrong capacity_factor", expected="more than 0, or None", got=capacity_factor)
        self.n_experts, self.top_k, self.capacity_factor = n_experts, top_k, capacity_factor
        self.proj = nn.Linear(d_model, n_experts, bias=False)

    def forward(self, x: Float[Tensor, "n d"]) -> Routing:
        """Return the routing of n tokens.

        Raises: InputError for tokens that are not flat: queues would be counted along the wrong dim.
        """
        if x.dim() != 2:
            raise InputError("tokens are not flat", expected="shape (n, d)", got=tuple(x.shape))
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(wide), self.proj.weight.to(wide))
        gates, experts = logits.softmax(-1).topk(self.top_k)
        if self.top_k > 1:
            gates = gates / gates.sum(-1, keepdim=True)
        places = queue_places(experts.T.flatten(), self.n_experts).view(self.top_k, -1).T
        return Routing(logits, experts, gates, places, self._capacity(len(x)))

    def _capacity(self, num_tokens: int) -> int | None:
        if self.capacity_factor is None:
            return None
        capacity = math.ceil(self.capacity_factor * num_tokens * self.top_k / self.n_experts)
        return min(capacity, num_tokens)  # a token chooses an expert once at most


def queue_places(experts: Int[Tensor, " m"], n_experts: int) -> Int[Tensor, " m"]:
    """Return, for each entry, how many entries before it name the same expert.

    >>> queue_places(torch.tensor([2, 0, 2, 2, 0]), 3)
    tensor([0, 0, 1, 2, 1])
    """
    one_hot = F.one_hot(experts, n_experts)
    return (one_hot.cumsum(0) * one_hot).sum(-1) - 1


def load_balancing_loss(routing: Routing, *, load: Int[Tensor, " e"] | None = None) -> Float[Tensor, ""]:
    """Return E Σ_i f_i P_i: 1 if experts are chosen evenly, up to E / k if always the same k are.

    f_i is the share of all choices that fell on expert i, dropped ones included; P_i the mean over tokens
    of its probability. f has no gradient, being a count: the loss lowers the probability of experts that
    many tokens chose. Switch adds it with the factor α = 0.01, a layer.

    Args:
        routing: of one layer.
        load: choices on each expert (E), where not this routing's alone count: under data parallelism the
            sum over ranks. The mean of the ranks' losses, of as many tokens each, is then that of the
            joined batch; with each rank's own f it is not.
    Raises: InputError if the load is not one number an expert.
    Source: Fedus et al. 2021, equations 4 to 6 (https://arxiv.org/abs/2101.03961).

    >>> even = Routing(torch.zeros(2, 2), torch.tensor([[0], [1]]), torch.ones(2, 1), torch.zeros(2, 1), None)
    >>> load_balancing_loss(even)
    tensor(1.)
    """
    load = routing.load if load is None else load
    if load.shape != routing.logits.shape[-1:]:  # one number would be broadcast
        expected = f"a load a{' '}expert, shape ({routing.logits.shape[-1]},)"
        raise InputError("the load is of another layer", expected=expected, got=tuple(load.shape))
    probabilities = routing.logits.softmax(-1).mean(0)
    shares = load.to(probabilities.dtype) / load.sum()
    return routing.logits.shape[-1] * (shares * probabilities).sum()


def router_z_loss(routing: Routing) -> Float[Tensor, ""]:
    """Return the mean over tokens of (log Σ_i exp(logit_i))², which keeps the logits small.

    ST-MoE adds it with the factor 0.001, a layer.

    Source: Zoph et al. 2022, ST-MoE, equation 5 (https://arxiv.org/abs/2202.08906).
    """
    return routing.logits.logsumexp(-1).square().mean()


@contextlib.contextmanager
def record_routing(model: nn.Module) -> Iterator[list[Routing]]:
    """Collect the `Routing` of every MoE layer of `model` that computes inside the block, in that order.

    The losses of a router are computed from these. Leave the block before the backward pass, or activation
    checkpointing will add each recomputed layer once more.

    >>> router = Router(4, 2, top_k=1)
    >>> with record_routing(router) as routings:
    ...     _ = router(torch.randn(3, 4))
    >>> loss = sum(load_balancing_loss(routing) for routing in routings)
    """
    routings: list[Routing] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, routing: routings.append(routing))
        for module in model.modules()
        if isinstance(module, Router)
    ]
    try:
        yield routings
    finally:
        for handle in handles:
            handle.remove()
