"""E feed-forward layers in one: their weights stacked, their tokens in a queue each."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from coursekit.models.config import INIT_STD, GPTConfig
from coursekit.models.routing import Routing


class Experts(nn.Module):
    """E layers like `FeedForward`, each for the tokens that were routed to it.

    Weights are stacked along dim 0 and stand transposed to those of `nn.Linear`, as the products want them:
    `up_proj` and, with swiglu, `gate_proj` (E, d, d_ff), `down_proj` (E, d_ff, d), and with bias `up_bias`
    and `gate_bias` (E, 1, d_ff), `down_bias` (E, 1, d).

    Args:
        config: of the model; `d_model`, `d_ff`, `activation`, `bias` and `n_layers` count here.
        n_experts: E.
    """

    def __init__(self, config: GPTConfig, n_experts: int) -> None:
        super().__init__()
        self.n_experts, self.first_expert, self.total_experts = n_experts, 0, n_experts
        self.n_layers, self.activation = config.n_layers, config.activation
        d, d_ff = config.d_model, config.d_ff
        widths = {"up": (d, d_ff), "gate": (d, d_ff), "down": (d_ff, d)}
        if config.activation != "swiglu":
            del widths["gate"]
        for name, (d_in, d_out) in widths.items():
            self.register_parameter(f"{name}_proj", nn.Parameter(torch.empty(n_experts, d_in, d_out)))
            bias = nn.Parameter(torch.empty(n_experts, 1, d_out)) if config.bias else None
            self.register_parameter(f"{name}_bias", bias)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, by the rule of `GPT.init_weights`, one expert after the other.

        Where this module holds a share of the experts, the others' numbers are drawn as well and let go: all
        ranks then have the weights of one process, and their generators stay alike.
        """
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
                continue
            std = INIT_STD / math.sqrt(2 * self.n_layers) if name == "down_proj" else INIT_STD
            weight = self._local(parameter)
            for expert in range(self.total_experts):
                drawn = nn.init.normal_(torch.empty_like(weight[0]), std=std, generator=generator)
                if 0 <= expert - self.first_expert < self.n_experts:
                    weight[expert - self.first_expert] = drawn

    def forward(self, x: Float[Tensor, "n d"], routing: Routing) -> Float[Tensor, "n d"]:
        """Return Σ_j gate_j expert_j(x) over the choices of each token that found a place.

        Without a capacity the longest queue's length is needed, and the device is waited for once.
        """
        places, room = routing.places, routing.capacity
        if room is None:
            room = int(places.max()) + 1
        rows = x.repeat_interleave(places.shape[1], dim=0)
        outputs = self.run(rows, routing.experts.flatten(), places.flatten(), room)
        return weighted_sum(outputs.unflatten(0, places.shape), routing.gates).type_as(x)

    def run(
        self, rows: Float[Tensor, "m d"], experts: Int[Tensor, " m"], places: Int[Tensor, " m"], room: int
    ) -> Float[Tensor, "m d"]:
        """Return the output of each row's expert; 0 for a row whose place is beyond the room.

        All rows are laid into one buffer (E, room, d), so that a product of stacked matrices does the work
        of all experts; places that stay empty are computed in vain.

        Args:
            rows: one token for one expert each.
            experts: number of each row's expert.
            places: of each row in its expert's queue; no two rows of one expert have the same.
            room: length of a queue.
        """
        nowhere = self.n_experts * room  # one row more than there are places, for what is dropped
        slots = (experts * room + places).masked_fill(places >= room, nowhere)
        queues = rows.new_zeros(nowhere + 1, rows.shape[1]).index_add(0, slots, rows)
        outputs = self.feed_forward(queues[:-1].unflatten(0, (self.n_experts, room)))
        return F.pad(outputs.flatten(0, 1), (0, 0, 0, 1))[slots]

    def feed_forward(
        self, x: Float[Tensor, "*e m d"], which: int | slice = slice(None)
    ) -> Float[Tensor, "*e m d"]:
        """Return each expert's output for its own m rows; of one expert, if `which` is a number."""
        inside = self._linear(x, "up", which)
        if self.activation == "swiglu":
            inside = F.silu(self._linear(x, "gate", which)) * inside
        else:
            inside = F.gelu(inside, approximate="tanh")
        return self._linear(inside, "down", which)

    def _linear(self, x: Tensor, name: str, which: int | slice) -> Tensor:
        weight, bias = getattr(self, f"{name}_proj"), getattr(self, f"{name}_bias")
        y = x @ self._local(weight)[which]
        return y if bias is None else y + self._local(bias)[which].type_as(y)

    def _local(self, parameter: Tensor) -> Tensor:
        """Return the experts of this process; there is something to do where they are spread."""
        return parameter


def weighted_sum(outputs: Float[Tensor, "n k d"], gates: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
    """Return Σ_j gates_j outputs_j, in the wider of the two dtypes.

    >>> weighted_sum(torch.tensor([[[2.0], [4.0]]]), torch.tensor([[0.5, 0.25]]))
    tensor([[2.]])
    """
    return (outputs * gates[..., None]).sum(1)
