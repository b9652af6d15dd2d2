"""Expert parallelism: the experts of a layer on several ranks, and the tokens sent to them and back."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed import _functional_collectives as functional  # all_to_all_single with a gradient
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from coursekit.errors import InputError
from coursekit.models.experts import Experts, weighted_sum
from coursekit.models.moe import MoE, mix_experts_naive
from coursekit.models.routing import Routing, queue_places
from coursekit.parallel._process_group import require_process_group
from coursekit.parallel.conjugate_operators import gather_sequence, scatter_sequence
from coursekit.parallel.data_parallel import average_gradients
from coursekit.parallel.mesh import make_mesh, one_axis

Group = dist.ProcessGroup | None


class SpreadExperts(Experts):
    """Rank r's share of E experts: those from r E / N up to (r + 1) E / N, of N ranks.

    Made by `spread_experts`. Each rank routes tokens of its own; the rows of its tokens travel to the ranks
    that have the chosen experts, and the outputs travel back. Dropped choices do not travel.

    A forward pass makes three all-to-alls: the counts (8 E bytes), the rows and the outputs. With m rows
    sent and m' received, of d numbers of s bytes, the latter two have payloads of m d s and m' d s, and the
    backward pass the same once more, 2 (m + m') d s in all. The counts must be known on the host before
    rows can be sent, so the device is waited for once.

    Parameters are DTensors, sharded along dim 0, so that the norm of gradients and distributed checkpoints
    know that ranks hold different experts.

    Args:
        experts: all E of them, the same on every rank; this module copies its share.
        mesh: of one axis, the N ranks.
    Raises: InputError if N does not divide E.
    Source: Lepikhin et al. 2020, GShard, section 3 (https://arxiv.org/abs/2006.16668).
    """

    def __init__(self, experts: Experts, mesh: DeviceMesh) -> None:
        nn.Module.__init__(self)
        self.group, self.ep_size = mesh.get_group(), mesh.size()
        _check_division(experts.n_experts, self.ep_size)
        self.n_experts, self.total_experts = experts.n_experts // self.ep_size, experts.n_experts
        self.first_expert = mesh.get_local_rank() * self.n_experts
        self.n_layers, self.activation = experts.n_layers, experts.activation
        for name, parameter in experts._parameters.items():
            self.register_parameter(name, None if parameter is None else self._share(parameter, mesh))

    def _share(self, parameter: Tensor, mesh: DeviceMesh) -> nn.Parameter:
        mine = parameter.detach().narrow(0, self.first_expert, self.n_experts)
        # A clone, or the slice would keep all experts' memory alive.
        return nn.Parameter(DTensor.from_local(mine.clone(), mesh, [Shard(0)], run_check=False))

    def _local(self, parameter: DTensor) -> Tensor:
        return parameter.to_local()

    def forward(self, x: Float[Tensor, "n d"], routing: Routing) -> Float[Tensor, "n d"]:
        """Return what `Experts.forward` does with all experts; n may differ between ranks."""
        num_choices = routing.experts.numel()
        order, sent = self._sort_by_expert(routing)
        received = functional.all_to_all_single(sent, None, None, self.group)
        sent, received = torch.stack((sent, received)).tolist()  # rows by rank and expert, on the host
        num_sent, num_received = list(map(sum, sent)), list(map(sum, received))
        order = order[: sum(num_sent)]  # what is dropped stands last
        rows = self._exchange(x[order // routing.experts.shape[1]], num_sent, num_received)
        outputs = self._exchange(self._run_received(rows, received), num_received, num_sent)
        in_place = outputs.new_zeros(num_choices, x.shape[1]).index_copy(0, order, outputs)
        return weighted_sum(in_place.unflatten(0, routing.gates.shape), routing.gates).type_as(x)

    def _sort_by_expert(self, routing: Routing) -> tuple[Int[Tensor, " m"], Int[Tensor, "n_ranks e"]]:
        """Return all choices in the order of their experts, and how many rows each expert gets."""
        nowhere = self.total_experts
        experts = routing.experts.masked_fill(~routing.kept, nowhere).flatten()
        load = F.one_hot(experts, nowhere + 1).sum(0)[:-1]
        # Stable: another order within a queue is as right, but sums in another order, and no run is repeated.
        return experts.argsort(stable=True), load.view(self.ep_size, self.n_experts)

    def _run_received(self, rows: Float[Tensor, "m d"], received: list[list[int]]) -> Float[Tensor, "m d"]:
        """Return the outputs for rows that stand by rank of origin, and for each by expert."""
        counts = torch.tensor(received, device=rows.device)
        numbers = torch.arange(self.n_experts, device=rows.device).repeat(self.ep_size)
        experts = numbers.repeat_interleave(counts.flatten(), output_size=len(rows))
        room = max(1, *(sum(column) for column in zip(*received, strict=True)))
        return self.run(rows, experts, queue_places(experts, self.n_experts), room)

    def _exchange(self, rows: Tensor, num_sent: list[int], num_received: list[int]) -> Tensor:
        return functional.all_to_all_single_autograd(rows, num_received, num_sent, self.group)


class GatheredExperts(SpreadExperts):
    """The version to read: every rank gets all tokens, and computes those that chose its experts.

    An all-gather of the tokens and a reduce-scatter of the outputs, whoever chose which expert. Each has
    N n d s bytes of payload, where an all-to-all of k choices a token has n k d s: N / k times as much. All
    ranks need the same n.
    """

    def forward(self, x: Float[Tensor, "n d"], routing: Routing) -> Float[Tensor, "n d"]:
        """Return what `SpreadExperts.forward` does."""
        numbers = torch.stack((routing.experts, routing.places), dim=1)
        parts = [torch.empty_like(numbers) for _ in range(self.ep_size)]
        dist.all_gather(parts, numbers, group=self.group)
        experts, places = torch.cat(parts).unbind(1)
        gates = gather_sequence(routing.gates, self.group, dim=0)
        of_all = Routing(routing.logits, experts - self.first_expert, gates, places, routing.capacity)
        y = mix_experts_naive(self, gather_sequence(x, self.group, dim=0), of_all)
        return scatter_sequence(y, self.group, dim=0)


def spread_experts(model: nn.Module, mesh: DeviceMesh | None = None) -> None:
    """Replace the experts of every `MoE` in `model` by this rank's share of them, see `SpreadExperts`.

    The router and all else stay whole on every rank. Make the optimizer afterwards; where it would work on
    many tensors at once (`foreach`, the default on a GPU), give the experts a parameter group of their own,
    since torch refuses DTensors and plain tensors in one. After the backward pass call
    `average_gradients_with_experts`: whatever averages all gradients over these ranks, as
    `DistributedDataParallel` does, would mix different experts.

    Args:
        model: the same on all ranks, with at least one `MoE`, on its device or on "meta"; changed in place.
        mesh: the ranks that share the experts, `make_mesh(ep=4)["ep"]`; None is all.
    Raises: InputError if the ranks do not divide the experts, there is no `MoE`, no process group, or they
        are spread already.
    """
    _replace_experts(model, mesh, SpreadExperts)


def spread_experts_naive(model: nn.Module, mesh: DeviceMesh | None = None) -> None:
    """Replace the experts of every `MoE` in `model` by this rank's share, see `GatheredExperts`.

    Args:
        model: as for `spread_experts`.
        mesh: as for `spread_experts`.
    Raises: InputError as `spread_experts` does.
    """
    _replace_experts(model, mesh, GatheredExperts)


@torch.no_grad()
def average_gradients_with_experts(model: nn.Module, group: Group = None, *, replicas: Group = None) -> None:
    """Replace every `p.grad` by the gradient of the mean of the ranks' losses, with experts spread.

    With L_r the mean loss on rank r of N, the mean is L = (1 / N) Σ_r L_r. What every rank has whole, the
    router too, has the gradient of its own L_r, and is averaged as `average_gradients` does. An expert has
    met the tokens of all ranks: the backward pass sent it Σ_r of its group, which is divided by N and not
    averaged with other ranks' experts.

    Args:
        model: after `spread_experts`, with gradients.
        group: all N ranks with tokens of their own; None is all there are.
        replicas: the ranks that hold the same experts as this one, where there are several groups that
            share them: `mesh["dp"].get_group()`, while `group` is that of the axes dp and ep together.
    Raises: InputError as `average_gradients` does, or if the groups do not fit: N ranks are so many
        replicas of so many ranks that share the experts.
    """
    spread = [module for module in model.modules() if isinstance(module, SpreadExperts)]
    require_process_group(group)
    require_process_group(replicas)
    _check_groups(spread, group, replicas)
    experts = {parameter: None for module in spread for parameter in module.parameters()}  # an ordered set
    average_gradients(nn.ParameterList(p for p in model.parameters() if p not in experts), group)
    for parameter in experts:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = parameter.grad.to_local()
        if replicas is not None:
            dist.all_reduce(gradient, group=replicas)
        gradient /= dist.get_world_size(group)


def total_load(routing: Routing, group: Group = None) -> Int[Tensor, " e"]:
    """Return the number of choices that fell on each expert, over the ranks of `group`.

    For `load_balancing_loss(routing, load=...)`: the mean of the ranks' losses is then that of the joined
    batch, if all have as many tokens.
    """
    require_process_group(group)
    load = routing.load
    dist.all_reduce(load, group=group)
    return load


def _replace_experts(model: nn.Module, mesh: DeviceMesh | None, kind: type[SpreadExperts]) -> None:
    layers = [module for module in model.modules() if isinstance(module, MoE)]
    if not layers:
        raise InputError("the model has no experts", fix="put them in with coursekit.models.use_experts")
    if any(isinstance(layer.experts, SpreadExperts) for layer in layers):
        raise InputError("the experts are spread already", fix="call it once")
    mesh = make_mesh()["dp"] if mesh is None else one_axis(mesh, "ep")
    for layer in layers:
        layer.experts = kind(layer.experts, mesh)


def _check_groups(spread: list[SpreadExperts], group: Group, replicas: Group) -> None:
    for module in spread:
        num_replicas = 1 if replicas is None else dist.get_world_size(replicas)
        if dist.get_world_size(group) != num_replicas * module.ep_size:
            raise InputError(
                "the groups do not fit",
                expected=f"{num_replicas} replicas of {module.ep_size} ranks that share experts, together",
                got=f"a group of {dist.get_world_size(group)}",
                fix="group is all ranks with tokens of their own, replicas those with the same experts",
            )


def _check_division(n_experts: int, ep_size: int) -> None:
    if n_experts % ep_size:
        above = n_experts - n_experts % ep_size + ep_size
        divisors = [n for n in range(1, n_experts + 1) if n_experts % n == 0]
        raise InputError(
            "the experts do not divide among the ranks",
            expected=f"a multiple of {ep_size} experts, as {above} is",
            got=n_experts,
            fix=f"or spread them over {' or '.join(map(str, divisors))} ranks",
        )
