# ---
# coursekit:
#   title: Data parallelism
#   forbidden:
#     - coursekit.parallel.data_parallel
#     - coursekit.parallel.average_gradients
#     - coursekit.parallel.average_gradients_bucketed
#     - coursekit.parallel.broadcast_parameters
#     - coursekit.parallel.shard_batch
#     - coursekit.parallel.shard_indices
#     - coursekit.parallel.replicate
#     - coursekit.parallel.zero_naive
#     - coursekit.parallel.ZeroOptimizerNaive
#     - coursekit.parallel.ShardedLinearNaive
#     - coursekit.parallel.sharded_data_parallel
#     - coursekit.parallel.shard_optimizer
#     - coursekit.parallel.shard_model
#     - coursekit.parallel.expert_parallel
#     - coursekit.parallel.average_gradients_with_experts
#     - coursekit.train.resumable_sampler
#     - coursekit.train.ResumableSampler
#     - torch.distributed._composable
#     - torch.distributed.algorithms
#     - torch.distributed.flight_recorder
#     - torch.distributed.fsdp
#     - torch.distributed.optim
#     - torch.distributed.tensor
#     - torch.distributed.utils
#     - torch.nn.parallel
#     - torch.utils.data.distributed
#     - torch.utils.data.DistributedSampler
# ---

# %% [markdown]
# # Data parallelism
# Six tasks and a question, 20 points, about 80 minutes. You deal out data, weigh gradients, mend a training
# loop with four planted bugs, share out an optimizer, design an all-reduce that the chapter does not show,
# and find out why a run hangs. Tasks 2, 3 and 4 are tested on real processes.
#
# To run a function of yours on two ranks, use `launch` as in the cell below. What it returns is a list with
# one result for each rank. If a rank fails, the error says which and where. Gradients are to be averaged
# with `torch.distributed` alone (`dist.broadcast(tensor, src=0)` and
# `dist.all_gather_into_tensor(joined, part)` are as plain as `all_reduce`): DDP, FSDP, ready-made samplers
# and the ready-made functions of `coursekit.parallel` are not allowed here.

# %%
import torch
import torch.distributed as dist

from coursekit.parallel import launch


def hello():
    total = torch.tensor([10.0 * dist.get_rank() + 1])
    dist.all_reduce(total)  # sum over the ranks, in place, on every rank
    return f"rank {dist.get_rank()} of {dist.get_world_size()} has {total.item()}"


launch(hello, 2)

# %% nbgrader="locked" grade_id="setup"
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from coursekit.notebooks import expect_close, expect_equal, points_for, probe


def softmax_gradient(weight, inputs, labels):
    """Gradient of the summed cross-entropy of `inputs @ weight.T`, written out by hand. Used by the tests."""
    error = torch.softmax(inputs @ weight.T, dim=1)
    error[torch.arange(len(labels)), labels] -= 1
    return error.T @ inputs


def scale_hint(got, want, ranks, otherwise):
    """Say so if a gradient is wrong by the factor `ranks` and nothing else; used by the tests."""
    if torch.is_tensor(got) and got.shape == want.shape:
        if torch.allclose(got, ranks * want):
            return (
                f"exactly {ranks} times too large: all_reduce gives the sum over {ranks} ranks; who divides?"
            )
        if torch.allclose(got, want / ranks):
            return f"exactly {ranks} times too small: is something divided by the number of ranks twice?"
    return otherwise


def play(schedule, world_size):
    """Play an all-reduce schedule (task 5) and return what every rank ends up with, and what each one sent.

    Returns: (holds, sent). holds[r][c][s] tells how often the contribution of rank s is in chunk c on rank r:
        all ones is an all-reduce. sent[r] is in units of the whole vector.
    """
    holds = np.zeros((world_size, world_size, world_size))
    holds[np.arange(world_size), :, np.arange(world_size)] = 1
    sent = np.zeros(world_size)
    for transfers in schedule:
        before = holds.copy()  # all transfers of a round happen at once
        for source, destination, chunks, operation in transfers:
            for chunk in chunks:
                kept = holds[destination, chunk] if operation == "add" else 0
                holds[destination, chunk] = kept + before[source, chunk]
                sent[source] += 1 / world_size
    return holds, sent


# %% [markdown]
# ## Task 1. Deal out an epoch (2 points)
# Every rank calls this function at the start of an epoch and trains on what it gets. `DistributedSampler`
# would repeat samples to make the shares equal: here nothing may be repeated, nothing left out, and no two
# shares may differ by more than one. The order must look shuffled, be another one in every epoch, and the
# ranks cannot talk to each other about it.


# %% nbgrader="solution" grade_id="epoch_shard"
def epoch_shard(num_samples, epoch, rank, world_size):
    """Return a list: the sample numbers (from 0) that this rank trains on in this epoch, in its order."""
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(epoch)  # the same on every rank: no rank in the seed
    order = torch.randperm(num_samples, generator=generator)
    return order[rank::world_size].tolist()
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_epoch_shard" points=1
epochs = [[epoch_shard(40, epoch, rank, 2) for rank in range(2)] for epoch in range(2)]
expect_equal(
    sorted(epochs[0][0] + epochs[0][1]),
    list(range(40)),
    hint="the two shares together must hold every sample once; do both ranks cut the same order?",
)
expect_equal([len(share) for share in epochs[0]], [20, 20], hint="equal shares where the number divides")
expect_equal(epochs[0][0] == epochs[1][0], False, hint="epoch 0 and epoch 1 have the same order; use `epoch`")
expect_equal(epochs[0][0] == sorted(epochs[0][0]), False, hint="the order is not shuffled")

# %% nbgrader="tests" grade_id="test_epoch_shard_hidden" points=1
# Graded with tests that you do not see: numbers that do not divide, more ranks than samples, many epochs.
### BEGIN HIDDEN TESTS
for count, ranks in ((23, 4), (3, 4), (101, 7)):
    shares = [epoch_shard(count, 5, rank, ranks) for rank in range(ranks)]
    expect_equal(
        sorted(sample for share in shares for sample in share),
        list(range(count)),
        hint=f"{count} samples on {ranks} ranks: each exactly once",
    )
    lengths = [len(share) for share in shares]
    expect_equal(
        max(lengths) - min(lengths) <= 1, True, hint=f"shares of {lengths} samples differ by more than one"
    )
orders = {tuple(epoch_shard(50, epoch, 1, 2)) for epoch in range(6)}
expect_equal(len(orders), 6, hint="six epochs should have six different orders")
for order in orders:
    gaps = {(order[i + 1] - order[i]) % 50 for i in range(len(order) - 1)}
    expect_equal(len(gaps) > 6, True, hint="not shuffled: from one sample to the next it is the same stride")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. One token, one vote (3 points)
# Sentences have different lengths, so ranks have different numbers of valid tokens. Write the backward pass
# and the averaging of one step, such that every rank ends up with the gradient of the mean loss over *all*
# tokens of *all* ranks. A rank may have no valid token at all in a step. Think about what the others do
# meanwhile.


# %% nbgrader="solution" grade_id="token_gradients"
def token_gradients(model, loss_sum, num_valid):
    """Set every `p.grad` on every rank to the gradient of the mean loss per valid token of all ranks.

    All ranks call this together. Every `p.grad` is None before the call.

    Args:
        model: any nn.Module of float64 parameters, the same on every rank.
        loss_sum: scalar tensor, this rank's loss in nats summed over its valid tokens. With `num_valid` 0 it
            is a plain zero that does not depend on the model, so it cannot be differentiated.
        num_valid: this rank's number of valid tokens; 0 on some ranks, never on all.
    """
    ### BEGIN SOLUTION
    total = torch.tensor(float(num_valid), dtype=torch.float64)
    dist.all_reduce(total)
    if num_valid > 0:
        (loss_sum / total).backward()
    for p in model.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)  # a rank without tokens still takes part in every call
        dist.all_reduce(p.grad)  # a sum: the division by all tokens is done
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_token_gradients" points=1
def gradients_of_two(weight, inputs, labels):
    from coursekit.parallel import launch

    def on_rank():
        model = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
        model.load_state_dict({"weight": weight})
        mine, targets = inputs[dist.get_rank()], labels[dist.get_rank()]
        token_gradients(model, cross_entropy(model(mine), targets, reduction="sum"), len(targets))
        return model.weight.grad

    return launch(on_rank, len(inputs), timeout_seconds=15)


generator = torch.Generator().manual_seed(1)
weight = torch.randn(3, 5, dtype=torch.float64, generator=generator)
inputs = [torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in (2, 10)]
labels = [torch.randint(3, (n,), generator=generator) for n in (2, 10)]
want = sum(softmax_gradient(weight, x, y) for x, y in zip(inputs, labels, strict=True)) / 12
got = probe(gradients_of_two, weight, inputs, labels)
expect_close(
    got[0],
    want,
    rtol=1e-10,
    hint=scale_hint(
        got[0], want, 2, "rank 0 has 2 tokens, rank 1 has 10: each of the 12 must count the same"
    ),
)
expect_equal(bool(torch.equal(got[0], got[1])), True, hint="the two ranks hold different gradients")


# %% nbgrader="tests" grade_id="test_token_gradients_hidden" points=2
# Graded with tests that you do not see: four ranks, a model of two layers, and a rank without a token.
### BEGIN HIDDEN TESTS
def gradients_of_four(first, second, inputs, labels):
    from coursekit.parallel import launch

    def on_rank():
        model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)).double()
        model.load_state_dict({"0.weight": first, "1.weight": second})
        mine, targets = inputs[dist.get_rank()], labels[dist.get_rank()]
        loss_sum = torch.zeros((), dtype=torch.float64)
        if len(targets):
            loss_sum = cross_entropy(model(mine), targets, reduction="sum")
        token_gradients(model, loss_sum, len(targets))
        return [p.grad for p in model.parameters()]

    return launch(on_rank, len(inputs), timeout_seconds=15)


def data(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(n, 5, dtype=torch.float64, generator=generator) for n in counts]
    return inputs, [torch.randint(3, (n,), generator=generator) for n in counts]


first, second = (
    torch.linspace(-1, 1, n, dtype=torch.float64).sin().reshape(shape)
    for n, shape in ((20, (4, 5)), (12, (3, 4)))
)


def expected(inputs, labels):
    """The chain rule by hand for two linear layers: logits = x first^T second^T."""
    x, y = torch.cat(inputs), torch.cat(labels)
    in_logits = softmax_gradient(second @ first, x, y) / len(y)  # with respect to second @ first
    return [second.T @ in_logits, in_logits @ first.T]


full, empty = data((1, 7, 3, 5), 2), data((4, 0, 6, 1), 3)
points_for(
    [
        (
            1,
            lambda: expect_close(
                probe(gradients_of_four, first, second, *full)[2],
                expected(*full),
                rtol=1e-10,
                hint="four ranks with 1, 7, 3 and 5 tokens: each of the 16 must count the same",
            ),
        ),
        (
            1,
            lambda: expect_close(
                probe(gradients_of_four, first, second, *empty)[1],
                expected(*empty),
                rtol=1e-10,
                hint="rank 1 has no token: it must still take part in every all-reduce, and get the result",
            ),
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 3. A loop with four bugs (5 points)
# The loop below runs on any number of ranks without an error, its loss falls, and it is wrong in four
# places. Write `train_rank`, which does on N ranks what its docstring says one process would do. Two of the
# four break a condition that the chapter names, one breaks its equation for the mean, and one you have met
# with sharded gradients only.


# %%
def train_rank_broken(weight, inputs, labels, steps, lr, max_norm, seed):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    model.load_state_dict({"weight": weight})
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed + step + rank)
        rows = torch.randperm(len(inputs), generator=generator)[: len(inputs) // 2]
        rows = rows[rank::world_size]
        optimizer.zero_grad()
        cross_entropy(model(inputs[rows]), labels[rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        for p in model.parameters():
            dist.all_reduce(p.grad)
        optimizer.step()
    return model.weight.detach()


# %% nbgrader="solution" grade_id="train_rank"
def train_rank(weight, inputs, labels, steps, lr, max_norm, seed):
    """Train a linear classifier with the other ranks; return its weight (classes, features), detached.

    All ranks together do what one process does that starts from *rank 0's* `weight`, draws in step k the
    batch torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed + k))[: len(inputs) // 2],
    takes the gradient of its mean cross-entropy, multiplies it by min(1, max_norm / its norm), and makes a
    step of SGD. Only rank 0 has read a checkpoint: the other ranks are called with another `weight`, which
    must not matter. The batch divides by the number of ranks, and each rank computes the gradient of its own
    share of the batch, with its own `inputs` and `labels`, and of nothing else.
    """
    ### BEGIN SOLUTION
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    model.load_state_dict({"weight": weight})
    for p in model.parameters():
        dist.broadcast(p.data, src=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed + step)  # one order for all ranks
        rows = torch.randperm(len(inputs), generator=generator)[: len(inputs) // 2]
        rows = rows[rank::world_size]
        optimizer.zero_grad()
        cross_entropy(model(inputs[rows]), labels[rows]).backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world_size
        # The norm of the whole batch's gradient: known only now.
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    return model.weight.detach()
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_train_rank" points=4
# One point for each bug. Each part is arranged such that the other three bugs make no difference to it.
def train_on_two(weights, inputs, labels, steps, lr, max_norm):
    from coursekit.parallel import launch

    def on_rank():
        return train_rank(weights[dist.get_rank()], inputs, labels, steps, lr, max_norm, 3)

    return launch(on_rank, len(weights), timeout_seconds=15)


def step_on_own_data(weights, inputs, labels, lr):
    from coursekit.parallel import launch

    def on_rank():
        rank = dist.get_rank()
        return train_rank(weights[rank], inputs[rank], labels[rank], 1, lr, 1e9, 3)

    return launch(on_rank, len(weights), timeout_seconds=15)


def moved(weights, *rest):
    """How far rank 1 ends from where rank 0 started."""
    return probe(train_on_two, weights, *rest)[1] - weights[0]


def unit(tensor):
    return tensor / tensor.norm()


generator = torch.Generator().manual_seed(4)
weights = [torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(2)]
equal_starts = [weights[0], weights[0]]
inputs = torch.randn(16, 4, dtype=torch.float64, generator=generator)
labels = torch.randint(3, (16,), generator=generator)
copies, others = ((inputs[i : i + 1].repeat(16, 1), labels[i : i + 1].repeat(16)) for i in range(2))
of_copies = softmax_gradient(weights[0], *copies) / 16
of_both = of_copies / 2 + softmax_gradient(weights[0], *others) / 32
own_data = probe(step_on_own_data, equal_starts, *zip(copies, others, strict=True), 0.5)[1] - weights[0]


def expect_one_mean():
    """Rank 1 steps along the mean of both ranks' gradients, however far."""
    hint = (
        "rank 0 was given 16 copies of one sample and rank 1 of another: does rank 1 step along the mean of "
        "both ranks' gradients? Compared is the direction"
    )
    expect_close(unit(own_data), -unit(of_both), rtol=1e-9, hint=hint)


batches = [torch.randperm(16, generator=torch.Generator().manual_seed(3 + step))[:8] for step in range(3)]
of_batches = sum(softmax_gradient(weights[0], inputs[rows], labels[rows]) for rows in batches)
points_for(
    [
        (
            1,
            lambda: (
                expect_one_mean(),
                expect_close(
                    own_data,
                    -0.5 * of_both,
                    rtol=1e-9,
                    hint="one step, equal starts, copies of a sample on each rank, no clip: the direction is "
                    "right; is the step's length?",
                ),
            ),
        ),
        (
            1,
            lambda: expect_close(
                unit(moved(weights, *copies, 1, 0.5, 1e9)),
                -unit(of_copies),
                rtol=1e-9,
                hint="16 copies of one sample, compared is only the direction from rank 0's weight to where "
                "rank 1 ends: where does rank 1 start?",
            ),
        ),
        (
            1,
            lambda: (
                expect_one_mean(),
                expect_close(
                    unit(moved(equal_starts, inputs, labels, 3, 1e-6, 1e9)),
                    -unit(of_batches),
                    rtol=1e-4,  # the weight moves by about 1e-6 between the steps
                    hint="equal starts, different samples, compared is the direction: do the shares make "
                    "up the batch of the docstring in every step?",
                ),
            ),
        ),
        (
            1,
            lambda: (
                expect_one_mean(),
                expect_close(
                    moved(equal_starts, inputs, labels, 1, 0.5, 0.05).norm(),
                    0.5 * 0.05,
                    rtol=1e-4,  # with or without clip_grad_norm_'s 1e-6 in the denominator
                    hint="the gradient is longer than max_norm = 0.05, so a step with lr 0.5 is 0.025 long, "
                    "whatever its direction: which gradient's norm is compared, and when?",
                ),
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_train_rank_hidden" points=1
# Graded with tests that you do not see: four ranks, several steps, clipped and not, equal to the last bit.
### BEGIN HIDDEN TESTS
def train_on_four(weights, inputs, labels, max_norm):
    from coursekit.parallel import launch

    def on_rank():
        return train_rank(weights[dist.get_rank()], inputs, labels, 5, 0.3, max_norm, 11)

    return launch(on_rank, len(weights), timeout_seconds=15)


generator = torch.Generator().manual_seed(5)
weights = [torch.randn(4, 6, dtype=torch.float64, generator=generator) for _ in range(4)]
inputs = torch.randn(24, 6, dtype=torch.float64, generator=generator)
labels = torch.randint(4, (24,), generator=generator)
for max_norm in (0.2, 1e9):
    want = weights[0]
    for step in range(5):
        rows = torch.randperm(24, generator=torch.Generator().manual_seed(11 + step))[:12]
        gradient = softmax_gradient(want, inputs[rows], labels[rows]) / 12
        want = want - 0.3 * gradient * min(1.0, max_norm / gradient.norm().item())
    got = probe(train_on_four, weights, inputs, labels, max_norm)
    # 1e-5: with or without the 1e-6 that clip_grad_norm_ adds to the norm.
    expect_close(
        got[3],
        want,
        rtol=1e-5,
        hint=f"four ranks, five steps, max_norm {max_norm:g}: not what one process gets",
    )
    expect_equal(
        all(bool(torch.equal(w, got[0])) for w in got), True, hint="the ranks end with different weights"
    )
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. An optimizer in parts (3 points)
# Copies waste memory: every rank keeps the same momentum. Share it out, as stage 1 of ZeRO does, and clip
# on the way. To keep it short, all weights of the model are one vector of n numbers. Of N ranks, rank r is
# responsible for the numbers r k to (r + 1) k - 1, where k is n / N rounded up; where that runs past the
# end, the shard is filled up with zeros. A rank keeps the momentum of its shard and of nothing else.


# %% nbgrader="solution" grade_id="zero_step"
def zero_step(weight, momentum, gradient, lr, beta, max_norm):
    """Return (weight, momentum) after one step of SGD with momentum that all ranks make together.

    All ranks together do what one process does: g is the mean over the ranks of their `gradient`, multiplied
    by min(1, max_norm / its norm); m = beta m + g; w = w - lr m.

    Args:
        weight: (n,), the same on every rank.
        momentum: (k,), this rank's shard of m.
        gradient: (n,), that of this rank's share of the batch.
        lr: of the step.
        beta: of the momentum.
        max_norm: of the whole mean gradient.

    Returns: the new weight (n,), the same on every rank, and the new shard (k,).
    """
    ### BEGIN SOLUTION
    rank, world_size = dist.get_rank(), dist.get_world_size()
    padding = (0, len(momentum) * world_size - len(weight))
    mine = torch.empty_like(momentum)
    dist.reduce_scatter(mine, list(nn.functional.pad(gradient, padding).chunk(world_size)))
    mine /= world_size
    square = mine.square().sum()
    dist.all_reduce(square)  # each number of g is in one shard, so the squares add up to those of the whole
    mine *= min(1.0, max_norm / square.sqrt().item())
    momentum = beta * momentum + mine
    shard = nn.functional.pad(weight, padding).chunk(world_size)[rank] - lr * momentum
    shards = [torch.empty_like(shard) for _ in range(world_size)]
    dist.all_gather(shards, shard)
    return torch.cat(shards)[: len(weight)], momentum
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_zero_step" points=2
def steps_of_two(weight, gradients, lr, beta, max_norm):
    from coursekit.parallel import launch

    def on_rank():
        w, m = weight, torch.zeros(-(-len(weight) // 2), dtype=torch.float64)
        for of_step in gradients:
            w, m = zero_step(w, m, of_step[dist.get_rank()], lr, beta, max_norm)
        return w, m

    return launch(on_rank, 2, timeout_seconds=15)


def one_process(weight, gradients, lr, beta, max_norm):
    m = torch.zeros_like(weight)
    for of_step in gradients:
        g = sum(of_step) / len(of_step)
        m = beta * m + g * min(1.0, max_norm / g.norm().item())
        weight = weight - lr * m
    return weight, m


generator = torch.Generator().manual_seed(8)
start = torch.randn(6, dtype=torch.float64, generator=generator)
per_step = [[torch.randn(6, dtype=torch.float64, generator=generator) for _ in range(2)] for _ in range(3)]
uneven = torch.tensor([9.0, 9, 9, 0.1, 0.1, 0.1], dtype=torch.float64)  # rank 0's shard is much longer
other = torch.tensor([1.0, -8, 2, 0.1, 0.1, 0.1], dtype=torch.float64)
clipped = [[uneven * (1 + k), other] for k in range(3)]
points_for(
    [
        (
            1,
            lambda: [
                expect_close(
                    [w for w, _ in probe(steps_of_two, start, per_step, 0.1, 0.9, 1e9)],
                    [one_process(start, per_step, 0.1, 0.9, 1e9)[0]] * 2,
                    rtol=1e-9,
                    hint="two ranks, three steps, no clipping: the weight on both ranks",
                ),
                expect_close(
                    [m for _, m in probe(steps_of_two, start, per_step, 0.1, 0.9, 1e9)],
                    list(one_process(start, per_step, 0.1, 0.9, 1e9)[1].chunk(2)),
                    rtol=1e-9,
                    hint="two ranks, three steps: rank 0 keeps the momentum of the first three numbers, "
                    "rank 1 of the others",
                ),
            ],
        ),
        (
            1,
            lambda: expect_close(
                probe(steps_of_two, start, clipped, 0.1, 0.9, 0.5)[1][0],
                one_process(start, clipped, 0.1, 0.9, 0.5)[0],
                rtol=1e-5,  # with or without clip_grad_norm_'s 1e-6 in the denominator
                hint="clipped at 0.5, with a gradient that lies nearly all in rank 0's shard: of which "
                "vector is the norm, and who knows it?",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_zero_step_hidden" points=1
# Graded with tests that you do not see: four ranks, lengths that do not divide, shards without a number.
### BEGIN HIDDEN TESTS
def steps_of_four(weights, gradients, lr, beta, max_norm):
    from coursekit.parallel import launch

    def on_rank():
        ends = []
        for weight, of_steps in zip(weights, gradients, strict=True):
            w, m = weight, torch.zeros(-(-len(weight) // 4), dtype=torch.float64)
            for of_step in of_steps:
                w, m = zero_step(w, m, of_step[dist.get_rank()], lr, beta, max_norm)
            ends.append((w, m))
        return ends

    return launch(on_rank, 4, timeout_seconds=15)


generator = torch.Generator().manual_seed(9)
weights = [torch.randn(n, dtype=torch.float64, generator=generator) for n in (10, 5)]
gradients = [
    [[torch.randn(len(w), dtype=torch.float64, generator=generator) for _ in range(4)] for _ in range(3)]
    for w in weights
]
ranks = probe(steps_of_four, weights, gradients, 0.2, 0.5, 0.4)
for k, (weight, of_steps) in enumerate(zip(weights, gradients, strict=True)):
    want, momentum = weight, torch.zeros_like(weight)
    for of_step in of_steps:
        mean = sum(of_step) / 4
        momentum = 0.5 * momentum + mean * min(1.0, 0.4 / mean.norm().item())
        want = want - 0.2 * momentum
    size = -(-len(weight) // 4)
    for rank in range(4):
        got, shard = ranks[rank][k]
        hint = f"four ranks, {len(weight)} numbers, clipped: "
        expect_close(got, want, rtol=1e-5, hint=hint + f"the weight on rank {rank}")
        mine = momentum[rank * size : (rank + 1) * size]
        padded = torch.cat([mine, torch.zeros(size - len(mine), dtype=torch.float64)])
        expect_close(shard, padded, rtol=1e-5, atol=1e-12, hint=hint + f"the momentum of rank {rank}")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. Fewer rounds than a ring (3 points)
# A ring needs 2(N - 1) rounds, and every round costs a latency: 2,046 of them for 1,024 ranks. *Recursive
# halving and doubling* (Thakur, Rabenseifner and Gropp 2005) sends exactly as many bytes in 2 log2(N)
# rounds. Over the 32 servers of Goyal and others it was three times as fast. For N a power of two:
#
# - Halving. Ranks that are N/2 apart form pairs. The two split the vector: each becomes responsible for one
#   half, sends the *other* half of its numbers to its partner, and adds what it receives. From then on each
#   works on its half only: pairs N/4 apart, a quarter of the vector; and so on, until each rank is
#   responsible for one chunk, which is then complete.
# - Doubling. The way back: the same pairs in reverse order hand each other the complete chunks that they
#   have.
#
# A schedule is a list of rounds. A round is a list of transfers `(source, destination, chunks, operation)`:
# `chunks` is a list of chunk numbers from 0 to N - 1, `operation` is `"add"` or `"copy"`. All transfers of a
# round happen at once. `play(schedule, world_size)`, defined above, shows what comes out. As an example, two
# ranks:


# %%
two = [[(0, 1, [1], "add"), (1, 0, [0], "add")], [(0, 1, [0], "copy"), (1, 0, [1], "copy")]]
play(two, 2)


# %% nbgrader="solution" grade_id="all_reduce_schedule"
def all_reduce_schedule(world_size):
    """Return the rounds of an all-reduce by recursive halving and doubling, for 2, 4, 8, ... ranks."""

    ### BEGIN SOLUTION
    def window(rank, length):
        """Chunks that the rank is responsible for when windows have this length."""
        begin = rank // length * length
        return list(range(begin, begin + length))

    distances = []
    while (distances[-1] if distances else world_size) > 1:
        distances.append((distances[-1] if distances else world_size) // 2)
    halving = [
        [(rank, rank ^ d, window(rank ^ d, d), "add") for rank in range(world_size)] for d in distances
    ]
    doubling = [
        [(rank, rank ^ d, window(rank, d), "copy") for rank in range(world_size)] for d in reversed(distances)
    ]
    return halving + doubling
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_schedule" points=2
schedule = all_reduce_schedule(4)
holds, sent = play(schedule, 4)
partners = [{(t[0], t[1]) for t in transfers} for transfers in schedule]
expect_equal(
    [len(pairs) for pairs in partners],
    [4] * len(schedule),
    hint="in every round each of the four ranks sends to one other rank; here is to how many they send "
    "altogether, round by round",
)
expect_equal(
    holds.min() == 1 and holds.max() == 1,
    True,
    hint="after the last round every chunk on every rank must hold each rank's contribution once: look at "
    "play(all_reduce_schedule(4), 4)[0]; a 0 is missing, a 2 was added twice",
)
points_for(
    [
        (
            1,
            lambda: expect_equal(len(schedule), 4, hint="four ranks need 2 log2(4) = 4 rounds; a ring has 6"),
        ),
        (
            1,
            lambda: expect_close(
                sent,
                np.full(4, 1.5),
                hint="each rank should send 2 (4 - 1) / 4 = 1.5 vectors; does it send more than is needed?",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_schedule_hidden" points=1
# Graded with tests that you do not see: other numbers of ranks.
### BEGIN HIDDEN TESTS
def is_all_reduce(world_size, rounds):
    schedule = all_reduce_schedule(world_size)
    holds, sent = play(schedule, world_size)
    for transfers in schedule:
        expect_equal(
            sorted({(t[0], t[1]) for t in transfers}),
            sorted((rank, partner) for partner, rank in {(t[0], t[1]) for t in transfers}),
            hint=f"{world_size} ranks: who sends to a rank hears from it in the same round",
        )
        expect_equal(
            sorted(rank for rank, _ in {(t[0], t[1]) for t in transfers}),
            list(range(world_size)),
            hint=f"{world_size} ranks: in every round each rank has one partner",
        )
    expect_equal(
        holds.min() == 1 and holds.max() == 1,
        True,
        hint=f"{world_size} ranks: not every chunk is the sum over all ranks",
    )
    expect_equal(len(schedule), rounds, hint=f"{world_size} ranks: number of rounds")
    bytes_sent = sum(2 / 2 ** (k + 1) for k in range(rounds // 2))  # half, quarter, ... there and back
    expect_close(sent, np.full(world_size, bytes_sent), hint=f"{world_size} ranks: vectors sent by each rank")


for world_size, rounds in ((2, 2), (8, 6), (32, 10)):
    is_all_reduce(world_size, rounds)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 6. Why does it hang? (2 points)
# All ranks must make the same collective calls in the same order. When they do not, nothing raises: some
# wait for a call that the others never make. PyTorch can record each rank's calls (its "flight recorder");
# given such records, find the first call at which the ranks part.


# %% nbgrader="solution" grade_id="first_mismatch"
def first_mismatch(calls):
    """Return None if all ranks made the same calls, else (position, groups) of the first difference.

    `groups` is the sorted list of the sorted lists of ranks that made the same call at that position. A rank
    whose record has ended made the call None there.

    Args:
        calls: for each rank the list of its calls, each a tuple (name, number of values) such as
            ("all_reduce", 2260).

    For instance, if rank 1 of three alone skips its second of two calls: (1, [[0, 2], [1]]).
    """
    ### BEGIN SOLUTION
    for position in range(max(map(len, calls), default=0)):
        groups = {}
        for rank, record in enumerate(calls):
            groups.setdefault(record[position] if position < len(record) else None, []).append(rank)
        if len(groups) > 1:
            return position, sorted(groups.values())
    return None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_first_mismatch" points=1
step = [("all_reduce", 1920), ("all_reduce", 30), ("all_reduce", 300), ("all_reduce", 10)]
expect_equal(first_mismatch([step * 3, step * 3]), None, hint="these two ranks agree in all calls")
expect_equal(
    first_mismatch([step[:2], step[:1], step[:2]]), (1, [[0, 2], [1]]), hint="the example of the docstring"
)
expect_equal(
    first_mismatch([[*step, ("all_reduce", 1), *step], step * 2, step * 2]),
    (4, [[0], [1, 2]]),
    hint="rank 0 alone sums a loss for its log after the first step: calls 0 to 3 agree, call 4 does not",
)

# %% nbgrader="tests" grade_id="test_first_mismatch_hidden" points=1
# Graded with tests that you do not see: records that end early, other kinds of difference.
### BEGIN HIDDEN TESTS
a, b, c = ("all_reduce", 8), ("all_reduce", 9), ("broadcast", 8)
for calls, want, hint in (
    ([[a, b], [a], [a, b]], (1, [[0, 2], [1]]), "rank 1 stopped after one call"),
    ([[a, a], [a, b], [a, c], [a, a]], (1, [[0, 3], [1], [2]]), "sizes and names both matter"),
    ([[], [a]], (0, [[0], [1]]), "a rank that made no call at all"),
    ([[a, b, c]] * 4, None, "four equal records"),
    ([[a, b], [b, a]], (0, [[0], [1]]), "the same calls in another order do not match"),
):
    expect_equal(first_mismatch(calls), want, hint=hint)
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# ## A question (2 points, read by a person)
# A team moves a run from 8 to 64 GPUs. Batch per GPU and learning rate stay as they were. A step takes 0.44
# s instead of 0.40 s, so they report "7.3 times as fast". After the same number of *tokens*, however, the
# loss is 0.15 nats higher than on 8 GPUs, and somebody suspects a bug in the gradient averaging.
#
# Say what you expect to see without any bug, name one short experiment that tells the two explanations
# apart, and say how you would report the gain of the 64 GPUs. About eight sentences.
#
# ### BEGIN SOLUTION
# **Model answer.** Without any bug a higher loss is expected: the global batch is eight times as large, so
# after the same tokens the run has made an eighth of the steps, each less noisy but no longer, because the
# learning rate was not raised. To separate this from a fault I keep the *global* batch: 64 GPUs with an
# eighth of the batch each (or 8 GPUs with eight accumulation steps), same seed, same data order. If
# averaging is right, the first step's gradient agrees with that of the 8-GPU run up to rounding, and the
# loss curves lie on each other for hundreds of steps; a fault (a sum in place of a mean, unequal token
# counts, repeated shares, unequal starts) shows in the first step at the percent level. A checksum of the
# weights, compared between ranks, tests the rest. 7.3 is the gain in tokens per second, (64/8) x 0.40/0.44,
# not in learning. I would tune the learning rate for the larger batch (start from linear scaling with warmup
# for SGD, less for Adam) and report the wall time to the same loss, which may be far below 7.3 beyond the
# critical batch size.
#
# **Rubric.** 1 point: the larger global batch at a fixed learning rate (fewer steps per token) explains it
# without a bug, and throughput is told apart from progress (time to a loss, with the learning rate tuned for
# each size, or a limit such as the critical batch named); half a point for each. 1 point: an experiment that
# holds the global batch fixed, or compares the averaged gradient of one fixed batch, with what each outcome
# would mean.
# ### END SOLUTION
