"""A mixture of experts in the place of a feed-forward layer: more parameters for the same work a token."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coursekit.errors import InputError, check_whole
from coursekit.models.config import INIT_STD, GPTConfig
from coursekit.models.experts import Experts
from coursekit.models.gpt import GPT
from coursekit.models.routing import Router, Routing


class MoE(nn.Module):
    """A router and E experts: y = Σ_j gate_j expert_j(x) over the k experts chosen for each token.

    A choice that finds no place in its expert's queue adds nothing; the token then passes by on the
    residual connection. Dropped choices, loads and the routers' losses come from `record_routing`.

    Args:
        config: shape of the experts, see `Experts`; its dropout acts on the sum.
        n_experts: E.
        top_k: k, experts a token.
        capacity_factor: room of an expert as a multiple of an even share, see `Router`; None drops nothing.
    Raises: InputError for a wrong `top_k` or `capacity_factor`.
    Source: Shazeer et al. 2017, equation 1 (https://arxiv.org/abs/1701.06538); Fedus et al. 2021, Switch
        Transformer (https://arxiv.org/abs/2101.03961).

    >>> config = GPTConfig(vocab_size=11, max_seq_len=8, d_model=4, n_layers=2, n_heads=2)
    >>> MoE(config, 8, top_k=2)(torch.randn(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(
        self, config: GPTConfig, n_experts: int, *, top_k: int = 2, capacity_factor: float | None = None
    ) -> None:
        super().__init__()
        self.router = Router(config.d_model, n_experts, top_k=top_k, capacity_factor=capacity_factor)
        self.experts = Experts(config, n_experts)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.router.proj.weight, std=INIT_STD)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Return what the layer adds to the hidden states."""
        flat = x.flatten(0, -2)
        return self.dropout(self.experts(flat, self.router(flat))).view_as(x)


def mix_experts_naive(experts: Experts, x: Float[Tensor, "n d"], routing: Routing) -> Float[Tensor, "n d"]:
    """Return what `experts(x, routing)` does, one expert and one choice at a time.

    The version to read. Picking out an expert's tokens waits for the device, 2 E k times.
    """
    y = torch.zeros_like(x)
    for expert in range(experts.n_experts):
        for choice in range(routing.experts.shape[1]):
            mine = (routing.experts[:, choice] == expert) & routing.kept[:, choice]
            outputs = routing.gates[mine, choice, None] * experts.feed_forward(x[mine], expert)
            y[mine] += outputs.type_as(y)  # gates are float32 where x is narrower
    return y


def use_experts(
    model: GPT,
    n_experts: int,
    *,
    top_k: int = 2,
    capacity_factor: float | None = None,
    every: int = 1,
) -> None:
    """Put an `MoE` with fresh weights into every `every`-th block of `model`, from the `every`-th on.

    Args:
        model: changed in place; make the optimizer afterwards.
        n_experts: E, as all other arguments for `MoE`.
        top_k: k.
        capacity_factor: None drops nothing.
        every: 1 is all blocks, as in Mixtral, 2 every second one, as in GShard and Switch.
    Raises: InputError as `MoE` does, if no block would get one, or for another model than a GPT.

    >>> model = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=4, n_layers=4, n_heads=2))
    >>> use_experts(model, 8, every=2)
    >>> [type(block.feed_forward).__name__ for block in model.blocks]
    ['FeedForward', 'MoE', 'FeedForward', 'MoE']
    """
    if not isinstance(model, GPT):
        raise InputError("no blocks for experts", expected="GPT", got=type(model).__name__)
    check_whole("no block for experts", every=every)
    if every > len(model.blocks):
        raise InputError("no block for experts", expected=f"every from 1 to {len(model.blocks)}", got=every)
    for block in model.blocks[every - 1 :: every]:
        if block is None:
            continue  # another stage of the pipeline has it
        weight = next(block.feed_forward.parameters())
        moe = MoE(model.config, n_experts, top_k=top_k, capacity_factor=capacity_factor)
        block.feed_forward = moe.to(device=weight.device, dtype=weight.dtype)
