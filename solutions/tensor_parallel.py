# ---
# coursekit:
#   title: Tensor parallelism
#   forbidden:
#     - coursekit.parallel.copy_to_ranks
#     - coursekit.parallel.sum_over_ranks
#     - coursekit.parallel.conjugate_operators
#     - coursekit.parallel.tensor_parallel
#     - coursekit.parallel.tensor_parallel_naive
#     - coursekit.parallel.tensor_parallelize
#     - coursekit.parallel.tensor_parallelize_naive
#     - coursekit.parallel.ColumnParallelLinear
#     - coursekit.parallel.RowParallelLinear
#     - coursekit.parallel.VocabParallelEmbedding
#     - coursekit.parallel.vocab_parallel_cross_entropy
#     - coursekit.parallel.sum_sequence_parallel_gradients
#     - coursekit.parallel.gather_sequence
#     - coursekit.parallel.scatter_sequence
#     - coursekit.parallel.split_sequence
#     - torch.distributed.nn
#     - torch.distributed.tensor
#     - torch.distributed._tensor
#     - torch.distributed._functional_collectives
#     - torch.ops._c10d_functional
#     - torch.ops.c10d_functional
# ---

# %% [markdown]
# # Tensor parallelism
# Six tasks and a question, 20 points, about 75 minutes. You cut a layer and a fused matrix, write the two
# operators that make gradients right, divide a loss that the chapter does not, look for the best
# two-dimensional cut, and find out which ranks of a mesh wait for each other for ever. Task 3 is tested on
# real processes.
#
# To run a function of yours on two ranks, use `launch` as in the cell below. Torch's and this course's
# ready-made divided layers and operators are not allowed here; `torch.distributed` itself is.

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
import random

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from coursekit.notebooks import expect_close, expect_equal, points_for, probe


def numbers(*shape, seed=0):
    """Standard normal float64 numbers, always the same ones. Used by the tests."""
    source = torch.Generator()
    source.manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=source)


def factor_hint(got, want, ranks, otherwise):
    """Say so if a gradient is wrong by the factor `ranks` and nothing else. Used by the tests."""
    if torch.is_tensor(got) and got.shape == want.shape:
        if torch.allclose(got, ranks * want):
            return f"exactly {ranks} times too large: is a gradient summed that every rank already had whole?"
        if torch.allclose(got, want / ranks):
            return f"exactly {ranks} times too small: nothing has to be divided here"
    return otherwise


# %% [markdown]
# ## Task 1. A rank's term (2 points)
# A feed-forward layer y = tanh(x Aᵀ + a) Bᵀ + b, with the matrices as torch keeps them, (out, in). Write
# what one rank computes before the sum: the *terms* of all ranks, added up, must be y. A rank uses its own
# part of what is divided and nothing else: the tests put NaN where the other ranks' parts are.


# %% nbgrader="solution" grade_id="mlp_term"
def mlp_term(x, up, up_bias, down, down_bias, rank, tp_size):
    """Return this rank's term of y, (tokens, d).

    Args:
        x: (tokens, d), the same on all ranks.
        up: A (d_ff, d), whole; a rank may use its d_ff / tp_size rows only.
        up_bias: a (d_ff,), likewise.
        down: B (d, d_ff), whole; a rank may use its columns only.
        down_bias: b (d,), which every rank may use.
        rank: from 0 to tp_size - 1; parts are in the order of the ranks.
        tp_size: number of ranks; it divides d_ff.
    """
    ### BEGIN SOLUTION
    up, up_bias = up.chunk(tp_size, dim=0)[rank], up_bias.chunk(tp_size)[rank]
    down = down.chunk(tp_size, dim=1)[rank]
    term = torch.tanh(x @ up.T + up_bias) @ down.T
    return term + down_bias if rank == 0 else term  # once, not once a rank
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_mlp_term" points=1
x, up, up_bias = numbers(3, 4), numbers(8, 4, seed=1), numbers(8, seed=2)
down, down_bias = numbers(4, 8, seed=3), numbers(4, seed=4)
want = torch.tanh(x @ up.T + up_bias) @ down.T + down_bias
terms = [mlp_term(x, up, up_bias, down, down_bias, rank, 2) for rank in range(2)]
expect_equal([list(term.shape) for term in terms], [[3, 4], [3, 4]], hint="a term has the shape of y")
excess = terms[0] + terms[1] - want
often = torch.allclose(excess, down_bias.expand(3, 4))
expect_close(
    terms[0] + terms[1],
    want,
    rtol=1e-10,
    hint="the bias b is in the sum twice"
    if often
    else "the two terms do not add up to y: A by rows (outputs), B by columns (inputs)",
)

# %% nbgrader="tests" grade_id="test_mlp_term_hidden" points=1
# Graded with tests that you do not see: one and four ranks, and NaN in the parts of all other ranks.
### BEGIN HIDDEN TESTS
x, up, up_bias = numbers(5, 6, seed=5), numbers(12, 6, seed=6), numbers(12, seed=7)
down, down_bias = numbers(6, 12, seed=8), numbers(6, seed=9)
want = torch.tanh(x @ up.T + up_bias) @ down.T + down_bias
for tp_size in (1, 4):
    total = torch.zeros(5, 6, dtype=torch.float64)
    for rank in range(tp_size):
        mine = torch.arange(12) // (12 // tp_size) == rank
        blind = [torch.where(mine[:, None], up, torch.nan), torch.where(mine, up_bias, torch.nan)]
        term = mlp_term(x, *blind, torch.where(mine, down, torch.nan), down_bias, rank, tp_size)
        expect_equal(
            bool(torch.isfinite(term).all()),
            True,
            hint=f"rank {rank} of {tp_size} used parts of other ranks: they were NaN here",
        )
        total = total + term
    expect_close(total, want, rtol=1e-10, hint=f"the terms of {tp_size} ranks do not add up to y")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. A fused matrix with shared heads (3 points)
# Many models keep Q, K and V in one matrix, its rows in this order: all query heads, all key heads, all
# value heads, each head `head_dim` rows. The first half of the rows is *not* the first rank's part. Say
# which rows a rank has to take so that it can work alone: its query heads (equal shares, neighbouring heads)
# with the key and value heads that they use. Query head q uses key and value head
# q // (n_heads // n_kv_heads). There may be more ranks than key heads: then several ranks take the same one.


# %% nbgrader="solution" grade_id="fused_rows"
def fused_rows(n_heads, n_kv_heads, head_dim, rank, tp_size):
    """Return a list: the rows of the fused matrix that this rank takes, as query, key, value rows in order.

    n_kv_heads divides n_heads, tp_size divides n_heads, and one of n_kv_heads and tp_size divides the other.
    """
    ### BEGIN SOLUTION
    own = n_heads // tp_size
    queries = range(rank * own, (rank + 1) * own)
    shared = sorted({q // (n_heads // n_kv_heads) for q in queries})
    heads = [*queries, *(n_heads + h for h in shared), *(n_heads + n_kv_heads + h for h in shared)]
    return [head * head_dim + k for head in heads for k in range(head_dim)]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_fused_rows" points=1
# Two query heads, two key heads, two value heads of two rows: 12 rows, numbered from 0.
got = list(fused_rows(2, 2, 2, 0, 2))
expect_equal(
    got == [0, 1, 2, 3, 4, 5],
    False,
    hint="rows 0 to 5 are both query heads and a key head: rank 0 would have no value, rank 1 no query",
)
expect_equal(got, [0, 1, 4, 5, 8, 9], hint="rank 0: query head 0, key head 0, value head 0")
expect_equal(
    list(fused_rows(4, 2, 1, 1, 2)),
    [2, 3, 5, 7],
    hint="4 query heads, 2 key heads, rank 1 of 2: queries 2 and 3 use key head 1",
)

# %% nbgrader="tests" grade_id="test_fused_rows_hidden" points=2
# Graded with tests that you do not see: larger layers (1 point), more ranks than key heads (1 point).
### BEGIN HIDDEN TESTS


def named_rows(n_heads, n_kv_heads, head_dim):
    """What stands in each row: (kind, head, dimension)."""
    counts = {"q": n_heads, "k": n_kv_heads, "v": n_kv_heads}
    return [
        (kind, head, dim)
        for kind, count in counts.items()
        for head in range(count)
        for dim in range(head_dim)
    ]


def expect_rows(n_heads, n_kv_heads, head_dim, tp_size):
    names = named_rows(n_heads, n_kv_heads, head_dim)
    for rank in range(tp_size):
        got = [names[row] for row in fused_rows(n_heads, n_kv_heads, head_dim, rank, tp_size)]
        mine = {head for head in range(n_heads) if head * tp_size // n_heads == rank}
        used = {head * n_kv_heads // n_heads for head in mine}
        want = [name for name in names if name[1] in (mine if name[0] == "q" else used)]
        expect_equal(
            got, want, hint=f"{n_heads} query and {n_kv_heads} key heads on {tp_size} ranks, rank {rank}"
        )


points_for(
    [
        (
            1,
            lambda: [
                expect_rows(*case) for case in ((8, 8, 3, 4), (12, 6, 2, 3), (16, 4, 5, 4), (6, 2, 4, 1))
            ],
        ),
        (1, lambda: [expect_rows(*case) for case in ((8, 2, 3, 4), (8, 1, 2, 8), (16, 4, 2, 8))]),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 3. The two operators (4 points)
# Write f and g for the default process group, such that the outputs and *all* gradients of a divided network
# are those of one process. Neither may change its argument, nor its backward pass the gradient that it is
# given. A `torch.autograd.Function` is the way.


# %% nbgrader="solution" grade_id="operators"
def enter_region(x):
    """Return x, which is the same on all ranks, as it enters a divided region."""
    ### BEGIN SOLUTION

    class Copy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            grad = grad.clone()
            dist.all_reduce(grad)  # the input went to all ranks: its gradient comes back from all
            return grad

    return Copy.apply(x)
    ### END SOLUTION


def leave_region(term):
    """Return the sum of all ranks' terms, as the stream goes on alike on all ranks."""
    ### BEGIN SOLUTION

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, term):
            total = term.clone()
            dist.all_reduce(total)
            return total

        @staticmethod
        def backward(ctx, grad):
            return grad  # every rank has it whole already

    return Sum.apply(term)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_operators" points=2
def on_two_ranks(stem, up, down, x):
    from coursekit.parallel import launch

    def on_rank():
        rank, n = dist.get_rank(), dist.get_world_size()
        w = stem.clone().requires_grad_()
        a = up.chunk(n, dim=0)[rank].clone().requires_grad_()
        b = down.chunk(n, dim=1)[rank].clone().requires_grad_()
        hidden = x @ w.T
        y = hidden + leave_region(torch.tanh(enter_region(hidden) @ a.T) @ b.T)
        (y**2).sum().backward()
        return [y.detach(), w.grad, a.grad]

    return launch(on_rank, 2, timeout_seconds=15)


stem, up, down, x = numbers(4, 3), numbers(6, 4, seed=1), numbers(4, 6, seed=2), numbers(5, 3, seed=3)
whole = [matrix.clone().requires_grad_() for matrix in (stem, up, down)]
hidden = x @ whole[0].T
y = hidden + torch.tanh(hidden @ whole[1].T) @ whole[2].T
in_stem, in_up, _ = torch.autograd.grad((y**2).sum(), whole)
got = probe(on_two_ranks, stem, up, down, x)
expect_close(
    got[0][0],
    y.detach(),
    rtol=1e-10,
    hint="the output is not that of one process: sum the terms in `leave_region`",
)
joined = torch.cat([got[0][2], got[1][2]])
expect_close(
    joined,
    in_up,
    rtol=1e-10,
    hint=factor_hint(
        joined, in_up, 2, "gradient of the divided matrix itself: look at `leave_region` backward"
    ),
)
expect_close(
    got[0][1],
    in_stem,
    rtol=1e-10,
    hint=factor_hint(
        got[0][1],
        in_stem,
        2,
        "gradient of the layer below the divided region: each rank has one term of it",
    ),
)
expect_equal(
    bool(torch.equal(got[0][1], got[1][1])), True, hint="the ranks hold different gradients of the stem"
)


# %% nbgrader="tests" grade_id="test_operators_hidden" points=2
# Graded with tests that you do not see: two regions one after the other (1 point); arguments unchanged (1).
### BEGIN HIDDEN TESTS
def two_regions(matrices, x):
    from coursekit.parallel import launch

    def on_rank():
        rank, n = dist.get_rank(), dist.get_world_size()
        hidden = start = x.clone().requires_grad_()
        for gate, up, down in matrices:
            inside = enter_region(hidden)  # two layers read it
            g, u, d = gate.chunk(n)[rank], up.chunk(n)[rank], down.chunk(n, dim=1)[rank]
            hidden = hidden + leave_region((torch.sigmoid(inside @ g.T) * (inside @ u.T)) @ d.T)
        (hidden**3).sum().backward()
        return start.grad

    return launch(on_rank, 4, timeout_seconds=15)


def arguments_after(x):
    from coursekit.parallel import launch

    def on_rank():
        term, incoming = (x + dist.get_rank()).requires_grad_(), torch.ones_like(x)
        kept = term.detach().clone()
        total = leave_region(term)
        entered = enter_region(term)
        entered.backward(incoming)
        return [kept, term.detach(), total.detach(), incoming]

    return launch(on_rank, 2, timeout_seconds=15)


def expect_two_regions():
    matrices = [
        [numbers(8, 4, seed=k), numbers(8, 4, seed=k + 1), numbers(4, 8, seed=k + 2) / 4] for k in (10, 20)
    ]
    hidden = start = numbers(3, 4, seed=5).requires_grad_()
    for gate, up, down in matrices:
        hidden = hidden + (torch.sigmoid(hidden @ gate.T) * (hidden @ up.T)) @ down.T
    (want,) = torch.autograd.grad((hidden**3).sum(), start)
    got = probe(two_regions, matrices, start.detach())
    expect_close(got[3], want, rtol=1e-10, hint="two gated regions on four ranks: gradient of the input")


def expect_unchanged():
    x = numbers(2, 3, seed=6)
    for kept, term, total, incoming in probe(arguments_after, x):
        expect_equal(
            bool(torch.equal(kept, term)),
            True,
            hint="an operator changed its argument: clone before all_reduce",
        )
        expect_close(total, 2 * x + 1, rtol=1e-10, hint="`leave_region` is not the sum over the ranks")
        expect_equal(
            bool(torch.equal(incoming, torch.ones_like(x))),
            True,
            hint="backward changed the gradient that it was given",
        )


points_for([(1, expect_two_regions), (1, expect_unchanged)])
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. A loss for divided logits (3 points)
# With label smoothing ε the loss of a token is
#
#     (1 - ε) (ln Σ_j exp(z_j) - z_y) + ε (ln Σ_j exp(z_j) - mean_j z_j)
#
# over *all* v logits. Each rank has some of them. Write what a rank finds out about its part, a few numbers
# per token, at most 6 whatever the size of the part, and how the loss follows from the numbers of all ranks.
# Logits can be large: exp(1000) is not a number.


# %% nbgrader="solution" grade_id="smoothed_loss"
def summarize(z, labels, first_id):
    """Return (tokens, k) float64: k numbers, at most 6, about this rank's logits.

    Args:
        z: (tokens, part), logits of the ids first_id, first_id + 1, ...
        labels: (tokens,), ids in the whole vocabulary; most are on other ranks.
        first_id: this rank's first id. Parts may differ in size.
    """
    ### BEGIN SOLUTION
    highest = z.amax(1)
    exponentials = (z - highest[:, None]).exp().sum(1)
    local = labels - first_id
    is_here = (local >= 0) & (local < z.shape[1])
    of_label = z.gather(1, local.where(is_here, 0)[:, None])[:, 0].where(is_here, 0)
    return torch.stack([highest, exponentials, of_label, z.sum(1)], dim=1)
    ### END SOLUTION


def combine(summaries, vocab_size, epsilon):
    """Return (tokens,): the loss of each token, from the list of what `summarize` returned on each rank."""
    ### BEGIN SOLUTION
    highest, exponentials, of_label, sums = torch.stack(summaries).unbind(-1)  # each (ranks, tokens)
    top = highest.amax(0)
    log_total = top + ((highest - top).exp() * exponentials).sum(0).log()
    return log_total - (1 - epsilon) * of_label.sum(0) - epsilon * sums.sum(0) / vocab_size
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_smoothed_loss" points=1
z, labels = numbers(4, 10, seed=11), torch.tensor([0, 4, 5, 9])
parts = [(z[:, :5], 0), (z[:, 5:], 5)]
summaries = [summarize(part.contiguous(), labels, first) for part, first in parts]
expect_equal(
    summaries[0].dim() == 2 and summaries[0].shape[1] <= 6,
    True,
    hint="at most 6 numbers a token, as (tokens, k)",
)
expect_close(
    combine(summaries, 10, 0.0),
    cross_entropy(z, labels, reduction="none"),
    rtol=1e-10,
    hint="without smoothing this is the plain cross-entropy; labels 0, 4 are on rank 0 and 5, 9 on rank 1",
)
expect_close(
    combine(summaries, 10, 0.1),
    cross_entropy(z, labels, reduction="none", label_smoothing=0.1),
    rtol=1e-10,
    hint="with smoothing 0.1: the mean is over all logits of all ranks",
)

# %% nbgrader="tests" grade_id="test_smoothed_loss_hidden" points=2
# Graded with tests that you do not see: parts of unequal size (1 point), logits in the thousands (1 point).
### BEGIN HIDDEN TESTS


def expect_loss(z, sizes, hint):
    labels = torch.arange(len(z)) * 7 % z.shape[1]
    summaries, first = [], 0
    for size in sizes:
        summaries.append(summarize(z[:, first : first + size].contiguous(), labels, first))
        first += size
    expect_equal(
        max(s.shape[1] for s in summaries) <= 6,
        True,
        hint="at most 6 numbers a token, however large the part",
    )
    expect_equal(
        {str(s.dtype) for s in summaries} == {"torch.float64"},
        True,
        hint="the 6 numbers are float64: a complex one would be two",
    )
    # In another order than they were asked for: what there is to know of a token lies in its own numbers.
    want = cross_entropy(z, labels, reduction="none", label_smoothing=0.2).flip(0)
    expect_close(combine([s.flip(0) for s in summaries], z.shape[1], 0.2), want, rtol=1e-9, hint=hint)


steep = numbers(6, 40, seed=13) * 2000
points_for(
    [
        (1, lambda: expect_loss(numbers(9, 30, seed=12), (11, 11, 8), "three ranks with 11, 11 and 8 ids")),
        (
            1,
            lambda: expect_loss(
                steep, (10, 10, 10, 10), "logits in the thousands, and each rank's highest is another"
            ),
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. Two-dimensional cuts (3 points)
# A matrix with `d_in` inputs and `d_out` outputs can be cut both ways at once: n = rows · cols ranks form a
# grid, and rank (i, j) holds the block of input part i (of `rows`) and output part j (of `cols`). Before and
# after the layer all activations are divided among all n ranks: a rank has d_in / n inputs of every token,
# and those of the `cols` ranks of grid row i are together input part i. So a rank
#
# 1. all-gathers input part i with the `cols` ranks of its grid row,
# 2. multiplies by its block,
# 3. reduce-scatters its terms of output part j with the `rows` ranks of its grid column.
#
# On rings. Which grid sends least? (One row is the chapter's gather, one column its reduce-scatter.)


# %% nbgrader="solution" grade_id="best_grid"
def best_grid(d_in, d_out, n):
    """Return (rows, cols, numbers): the grid that sends least, and the numbers a rank sends for a token.

    Every rows · cols = n is allowed, and n divides d_in and d_out. If two grids send as much, the one with
    fewer rows.
    """
    ### BEGIN SOLUTION
    grids = []
    for rows in (r for r in range(1, n + 1) if n % r == 0):
        cols = n // rows
        gather = (cols - 1) * d_in / n  # (cols - 1) / cols of d_in / rows
        scatter = (rows - 1) * d_out / n
        grids.append((gather + scatter, rows, cols))
    numbers, rows, cols = min(grids)
    return rows, cols, numbers
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_best_grid" points=1
rows, cols, sent = best_grid(1024, 1024, 1)
expect_equal([rows, cols, sent], [1, 1, 0], hint="one rank sends nothing")
rows, cols, sent = best_grid(32, 128, 4)
expect_equal([rows, cols], [1, 4], hint="32 inputs, 128 outputs, 4 ranks: the chapter's gather")
expect_close(sent, 24, hint="the chapter counted 24 numbers a token for it")
rows, cols, sent = best_grid(1024, 1024, 16)
expect_equal([rows, cols], [4, 4], hint="1,024 by 1,024 on 16 ranks: a square grid")
expect_close(
    sent,
    384,
    hint="gather 256 inputs over 4 ranks of a row, scatter 256 outputs over 4 of a column",
)

# %% nbgrader="tests" grade_id="test_best_grid_hidden" points=2
# Graded with tests that you do not see: other widths and numbers of ranks (1 point each for grid, numbers).
### BEGIN HIDDEN TESTS


def ring_total(part, group):
    """Numbers that a rank sends when `part` goes round a ring of `group` ranks once, chunk by chunk."""
    return sum(part / group for _ in range(group - 1))


def every_grid(d_in, d_out, n):
    return {
        (rows, cols): ring_total(d_in / rows, cols) + ring_total(d_out / cols, rows)
        for rows in range(1, n + 1)
        for cols in range(1, n + 1)
        if rows * cols == n
    }


cases = [
    (4096, 16384, 64),
    (16384, 4096, 64),
    (960, 960, 12),
    (7200, 720, 36),
    (512, 512, 2),
    (64, 8192, 16),
    (91, 91, 7),
]


def expect_grids():
    for d_in, d_out, n in cases:
        rows, cols, _ = best_grid(d_in, d_out, n)
        sent = every_grid(d_in, d_out, n)
        least = [grid for grid, value in sorted(sent.items()) if value < min(sent.values()) * (1 + 1e-9)]
        expect_equal([rows, cols], list(least[0]), hint=f"{d_in} inputs, {d_out} outputs, {n} ranks")


def expect_numbers():
    for d_in, d_out, n in cases:
        want = min(every_grid(d_in, d_out, n).values())
        expect_close(
            best_grid(d_in, d_out, n)[2], want, rtol=1e-9, hint=f"{d_in} inputs, {d_out} outputs, {n} ranks"
        )


points_for([(1, expect_grids), (1, expect_numbers)])
### END HIDDEN TESTS

# %% [markdown]
# ## Task 6. Who waits for whom (3 points)
# On a mesh a rank belongs to several groups, and calls a collective now in one, now in another. A call is
# complete when all ranks of its group stand at it; until then those that have come wait. From the order in
# which each rank makes its calls, find the ranks that wait for ever, what they stand at, and who is missing
# there.


# %% nbgrader="solution" grade_id="who_waits"
def who_waits(programs):
    """Return {rank: (group, missing)} for each rank that never gets to the end of its program.

    Args:
        programs: programs[r] is the list of groups, tuples of ranks in rising order, whose collectives rank r
            calls, in its order. Rank r is in each of them.
    Returns: for each rank that waits for ever the group (a tuple) at whose call it stands, and the sorted
        list of the ranks of that group that do not stand at a call of this group at the end.
    """
    ### BEGIN SOLUTION
    place = [0] * len(programs)

    def stands_at(rank):
        return programs[rank][place[rank]] if place[rank] < len(programs[rank]) else None

    progress = True
    while progress:
        progress = False
        for rank in range(len(programs)):
            group = stands_at(rank)
            if group is not None and all(stands_at(member) == group for member in group):
                progress = True
                for member in group:
                    place[member] += 1
    return {
        rank: (stands_at(rank), [m for m in stands_at(rank) if stands_at(m) != stands_at(rank)])
        for rank in range(len(programs))
        if stands_at(rank) is not None
    }
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_who_waits" points=1
tp, dp = [(0, 1), (2, 3)], [(0, 2), (1, 3)]  # a mesh of 2 x 2: tensor-parallel rows, data-parallel columns
good = [[tp[0], dp[0]], [tp[0], dp[1]], [tp[1], dp[0]], [tp[1], dp[1]]]
expect_equal(who_waits(good), {}, hint="all ranks sum over tp, then over dp: nobody waits for ever")
one_left = [[tp[0], dp[0]], [tp[0], dp[1]], [tp[1], dp[0]], [tp[1]]]  # rank 3 has no gradient to average
expect_equal(
    who_waits(one_left),
    {1: ((1, 3), [3])},
    hint="rank 3 ends without its second call: rank 1 waits for it, ranks 0 and 2 are done",
)
swapped = [[tp[0], dp[0]], [tp[0], dp[1]], [tp[1], dp[0]], [dp[1], tp[1]]]
expect_equal(who_waits(swapped), {}, hint="rank 3 calls in another order, and yet everybody gets through")
circle = [[dp[0], tp[0]], [tp[0], dp[1]], [tp[1], dp[0]], [dp[1], tp[1]]]
expect_equal(
    who_waits(circle),
    {0: ((0, 2), [2]), 1: ((0, 1), [0]), 2: ((2, 3), [3]), 3: ((1, 3), [1])},
    hint="0 waits for 2, 2 for 3, 3 for 1 and 1 for 0: a circle, in which nobody gets through",
)

# %% nbgrader="tests" grade_id="test_who_waits_hidden" points=2
# Graded with tests that you do not see: circles and ends (1 point), a hundred programs on a mesh (1 point).
### BEGIN HIDDEN TESTS


def completes(programs):
    """Another route: the k-th call of a group completes if all members make one, and all calls before do."""
    calls, before = {}, {}
    for rank, program in enumerate(programs):
        seen, previous = {}, None
        for group in program:
            call = (group, seen.get(group, 0))
            seen[group] = call[1] + 1
            calls.setdefault(call, set()).add(rank)
            before.setdefault(call, set())
            if previous is not None:
                before[call].add(previous)
            previous = call
    done, grown = set(), True
    while grown:
        ready = {c for c in calls if c not in done and calls[c] == set(c[0]) and before[c] <= done}
        done, grown = done | ready, bool(ready)
    return done


def expected_waits(programs):
    done, stand = completes(programs), {}
    for rank, program in enumerate(programs):
        seen = {}
        for group in program:
            call = (group, seen.get(group, 0))
            seen[group] = call[1] + 1
            if call not in done:
                stand[rank] = group
                break
    return {r: (group, [m for m in group if stand.get(m) != group]) for r, group in stand.items()}


def mesh_program(generator, rank):
    tp = tuple(range(rank // 2 * 2, rank // 2 * 2 + 2))
    dp = tuple(range(rank % 2, 8, 2))
    program = [tp, tp, dp, tp, dp]
    if generator.random() < 0.15:
        program = program[: generator.randrange(5)]
    if generator.random() < 0.15:
        generator.shuffle(program)
    return program


def expect_by_hand():
    ring = [[(0, 1), (0, 2)], [(1, 2), (0, 1)], [(0, 2), (1, 2)]]
    got = who_waits(ring)
    expect_equal(
        got,
        {0: ((0, 1), [1]), 1: ((1, 2), [2]), 2: ((0, 2), [0])},
        hint="three ranks, each at a call for which the next has not come: a circle",
    )
    everyone = (0, 1, 2, 3)
    late = [[everyone, everyone], [everyone, everyone], [everyone], [everyone, everyone]]
    expect_equal(
        who_waits(late),
        {r: (everyone, [2]) for r in (0, 1, 3)},
        hint="all come to the first call, rank 2 does not come to the second",
    )
    expect_equal(
        who_waits([[], [(1,), (1,)]]), {}, hint="an empty program is done; a group of one waits for nobody"
    )


def expect_by_chance():
    generator = random.Random(5)
    stuck = 0
    for _ in range(100):
        programs = [mesh_program(generator, rank) for rank in range(8)]
        want = expected_waits(programs)
        stuck += bool(want)
        expect_equal(
            who_waits([list(p) for p in programs]), want, hint=f"8 ranks with the programs {programs}"
        )


points_for([(1, expect_by_hand), (1, expect_by_chance)])
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# ## Question. Sixteen instead of eight (2 points)
# A 70B model trains on servers of 8 GPUs with tensor parallelism of 8. A new team doubles it to 16, over two
# servers, "to halve the memory and the time of a layer". Measured per layer and micro-step: the products took
# 20 ms and take 11 ms; waiting for all-reduces took 3 ms and takes 14 ms. The batch is unchanged. Why did
# waiting grow although a rank sends nearly as many bytes as before, by how much did a layer's time change,
# and what would you propose to the team, which does need more memory?
#
# ### BEGIN SOLUTION
# **Model answer.** Bytes per rank go from 2·7/8 to 2·15/16 of four times b·s·d, only 7 percent more. But the
# ring now passes between servers, over network cards with less bandwidth than NVLink and more latency, in
# more rounds; and nothing hides the waiting, since each product needs the sum before it. A layer took 20 + 3
# = 23 ms and takes 11 + 14 = 25 ms: twice the GPUs, and slower. The products did not quite halve either:
# thinner matrices are less efficient. Better: keep 8 inside the server. Use the second server for a pipeline
# stage (b·s·d once at the border between stages) or for data parallelism with divided state (ZeRO, FSDP:
# much of it overlapped). For activations: sequence parallelism at no extra bytes, and recomputation.
#
# **Rubric.** 1 point: slower links between servers (bandwidth or latency) on the critical path named as the
# cause, with the bytes about equal, and 23 against 25 ms. 1 point: a proposal that leaves tensor parallelism
# within the server and saves memory in another way, with a reason why its traffic bears the slow link (less
# of it, or overlapped). Half points are fine.
# ### END SOLUTION
