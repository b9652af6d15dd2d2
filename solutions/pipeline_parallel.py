# ---
# coursekit:
#   title: Pipeline parallelism
#   forbidden:
#     - coursekit.parallel.pipeline_schedules
#     - coursekit.parallel.pipeline_bubble
#     - coursekit.parallel.pipeline_stages
#     - coursekit.parallel.pipeline_naive
#     - coursekit.parallel.pipeline_parallel
#     - coursekit.parallel.one_f_one_b_schedule
#     - coursekit.parallel.gpipe_schedule
#     - coursekit.parallel.interleaved_schedule
#     - coursekit.parallel.zero_bubble_schedule
#     - coursekit.parallel.check_schedule
#     - coursekit.parallel.simulate_schedule
#     - coursekit.parallel.bubble_over_step
#     - coursekit.parallel.bubble_over_ideal
#     - coursekit.parallel.balance_stages
#     - coursekit.parallel.gpipe_step_naive
#     - coursekit.parallel.make_schedule
#     - torch.distributed.pipelining
# ---

# %% [markdown]
# # Pipeline parallelism
# Five tasks and a question, 20 points, about 75 minutes. You compute bubbles, write the order 1F1B, find out
# how long an order takes on unequal stages and whether it ends at all, place layers where memory is short,
# and run a step on two and on three real processes.
#
# In tasks 2 and 3 an order is a list with one list for each rank, of words such as "F0" and "B3": the
# forward or the backward pass of a micro-batch (from 0) through the rank's one stage. Torch's and this
# course's ready-made schedules are not allowed here.
#
# For task 5, the cell below starts two processes, of which rank 0 sends three numbers and rank 1 receives
# them; `launch` gives back what each of them returned.

# %%
import torch
import torch.distributed as dist

from coursekit.parallel import launch


def hand_on():
    x = torch.zeros(3)
    if dist.get_rank() == 0:
        dist.send(torch.arange(3.0), 1)
    else:
        dist.recv(x, 0)
    return x


launch(hand_on, 2)

# %% nbgrader="locked" grade_id="setup"
import itertools

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from coursekit.notebooks import expect_close, expect_equal, points_for, probe


def draw(*shape, seed=0):
    """Standard normal float64 numbers, always the same ones. Used by the tests."""
    source = torch.Generator()
    source.manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=source)


def complete(order, num_micro_batches):
    """Whether each rank does every F and every B once. Used by the tests."""
    wanted = sorted(f"{kind}{k}" for kind in "FB" for k in range(num_micro_batches))
    return all(sorted(words) == wanted for words in order)


# %% [markdown]
# ## Task 1. Two bubbles (2 points)
# p equal stages, m micro-batches, GPipe or 1F1B.


# %% nbgrader="solution" grade_id="bubbles"
def bubbles(p, m):
    """Return (idle share of the whole step, idle time over busy time)."""
    ### BEGIN SOLUTION
    return (p - 1) / (m + p - 1), (p - 1) / m
    ### END SOLUTION


def fewest_micro_batches(p, most_idle):
    """Return the least m at which at most the share `most_idle` (above 0) of the step is idle."""
    ### BEGIN SOLUTION
    m = 1
    while (p - 1) / (m + p - 1) > most_idle:
        m += 1
    return m
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_bubbles" points=1
got = bubbles(4, 8)
expect_close(got[1], 0.375, hint="p = 4, m = 8: three slots idle, eight busy")
expect_close(
    got[0], 3 / 11, hint="p = 4, m = 8: of eleven slots in all three are idle; 0.375 is idle over busy"
)
expect_equal(fewest_micro_batches(4, 0.28), 8, hint="p = 4: with m = 8 it is 0.273, with m = 7 it is 0.3")

# %% nbgrader="tests" grade_id="test_bubbles_hidden" points=1
# Graded with tests that you do not see: other numbers, one stage, fewer micro-batches than stages.
### BEGIN HIDDEN TESTS
for p, m in ((1, 5), (8, 3), (16, 16), (12, 128)):
    slots = m + p - 1  # by counting: a table of slots, one row a rank
    busy = sum(1 for rank in range(p) for slot in range(slots) if 0 <= slot - rank < m)
    idle = p * slots - busy
    got = bubbles(p, m)
    expect_close(got[0], idle / (p * slots), hint=f"idle share of the step for p = {p}, m = {m}")
    expect_close(got[1], idle / busy, hint=f"idle over busy for p = {p}, m = {m}")
for p, share in ((1, 0.01), (8, 0.103), (16, 0.4987), (5, 0.9)):
    want = next(m for m in itertools.count(1) if p - 1 <= share * (m + p - 1))
    expect_equal(fewest_micro_batches(p, share), want, hint=f"p = {p}, at most {share} idle")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. The order 1F1B (4 points)
# Rank r first does forward passes, until the first gradient can have come back to it: p - 1 - r of them
# (or all, if there are fewer). Then it does one forward and one backward pass in turn, and at the end the
# backward passes that are left. Micro-batches go in their order, both ways.


# %% nbgrader="solution" grade_id="order_1f1b"
def order_1f1b(p, m):
    """Return the order: for each of p ranks the list of its 2 m words."""
    ### BEGIN SOLUTION
    order = []
    for rank in range(p):
        ahead = min(p - 1 - rank, m)
        words = [f"F{k}" for k in range(ahead)]
        for k in range(ahead, m):
            words += [f"F{k}", f"B{k - ahead}"]
        words += [f"B{k}" for k in range(m - ahead, m)]
        order.append(words)
    return order
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_order_1f1b" points=1
order = [list(words) for words in order_1f1b(2, 3)]
expect_equal(complete(order, 3), True, hint="each rank does F0, F1, F2 and B0, B1, B2, each once")
expect_equal(order[1], ["F0", "B0", "F1", "B1", "F2", "B2"], hint="the last rank runs ahead of nobody")
expect_equal(order[0], ["F0", "F1", "B0", "F2", "B1", "B2"], hint="rank 0 of 2 runs ahead by one")

# %% nbgrader="tests" grade_id="test_order_1f1b_hidden" points=3
# Graded with tests that you do not see: an order that works (1 point), its length (1), what it stores (1).
### BEGIN HIDDEN TESTS


def examine(order, times):
    """Run an order on paper: (end, most) or the reason why it is none."""
    ends, free, place = {}, [0.0] * len(order), [0] * len(order)
    held, most, moved = [0] * len(order), [0] * len(order), True
    while moved:
        moved = False
        for rank, words in enumerate(order):
            if place[rank] == len(words):
                continue
            kind, batch = words[place[rank]][0], int(words[place[rank]][1:])
            if kind == "F":
                wanted = [("F", rank - 1, batch)] if rank else []
            else:
                wanted = [("F", rank, batch)] + ([("B", rank + 1, batch)] if rank + 1 < len(order) else [])
            if not all(word in ends for word in wanted):
                continue
            start = max([free[rank], *(ends[word] for word in wanted)])
            free[rank] = ends[kind, rank, batch] = start + times[rank][kind == "B"]
            held[rank] += 1 if kind == "F" else -1
            most[rank] = max(most[rank], held[rank])
            place[rank] += 1
            moved = True
    for rank, words in enumerate(order):
        if place[rank] < len(words):
            return f"rank {rank} waits for ever at {words[place[rank]]}"
    return max(free), most


sizes = [(4, 8), (8, 9), (3, 3), (1, 4), (5, 2), (6, 1)]


def expect_works(p, m):
    order = order_1f1b(p, m)
    expect_equal(complete(order, m), True, hint=f"p = {p}, m = {m}: every F and every B once on each rank")
    examined = examine(order, [(1, 2)] * p)
    expect_equal(examined if isinstance(examined, str) else "", "", hint=f"p = {p}, m = {m}")


def expect_length(p, m):
    expect_equal(
        examine(order_1f1b(p, m), [(1, 2)] * p)[0],
        3 * (m + p - 1),
        hint=f"p = {p}, m = {m}: F one unit, B two; the step should take 3 (m + p - 1)",
    )


def expect_store(p, m):
    expect_equal(
        examine(order_1f1b(p, m), [(1, 2)] * p)[1],
        [min(p - rank, m) for rank in range(p)],
        hint=f"p = {p}, m = {m}: rank r should hold at most p - r micro-batches",
    )


points_for(
    [
        (1, lambda: [expect_works(*size) for size in sizes]),
        (1, lambda: [expect_length(*size) for size in sizes]),
        (1, lambda: [expect_store(*size) for size in sizes]),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 3. When does it end? (4 points)
# Any order, stages of unequal cost. A rank begins a word when it has done the one before and what the word
# needs is there: for F the same micro-batch's F on the rank before (rank - 1), for B its own F and, except on
# the last rank, its B on the rank after (rank + 1). Sending takes no time. The order may be one that never
# ends.


# %% nbgrader="solution" grade_id="end_of"
def end_of(order, times):
    """Return the time at which the last word ends, or None if some ranks wait for ever.

    Args:
        order: for each rank the list of its words; not every micro-batch need be there.
        times: for each rank (t_F, t_B).
    """
    ### BEGIN SOLUTION
    ends, place, free = {}, [0] * len(order), [0.0] * len(order)
    moved = True
    while moved:
        moved = False
        for rank, words in enumerate(order):
            while place[rank] < len(words):
                kind, k = words[place[rank]][0], int(words[place[rank]][1:])
                needs = []
                if kind == "F" and rank > 0:
                    needs = [("F", rank - 1, k)]
                elif kind == "B":
                    needs = [("F", rank, k)] + ([("B", rank + 1, k)] if rank < len(order) - 1 else [])
                if any(word not in ends for word in needs):
                    break
                start = max([free[rank]] + [ends[word] for word in needs])
                free[rank] = ends[kind, rank, k] = start + times[rank][0 if kind == "F" else 1]
                place[rank] += 1
                moved = True
    if any(place[rank] < len(words) for rank, words in enumerate(order)):
        return None
    return max(free)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_end_of" points=2
gpipe = [["F0", "F1", "B0", "B1"]] * 2
expect_close(
    end_of(gpipe, [(1, 2), (1, 2)]), 9, hint="two equal stages, two micro-batches: 3 (m + p - 1) = 9"
)
expect_close(
    end_of(gpipe, [(1, 2), (5, 6)]),
    25,
    hint="rank 1 begins at 1, works 5 + 5 + 6 + 6 until 23, then rank 0 has its last B of 2",
)
expect_equal(
    end_of([["F0", "F1", "B0", "F2", "B1", "B2"], ["F0", "F1", "F2", "B0", "B1", "B2"]], [(1, 2), (1, 2)]),
    None,
    hint="rank 0 waits for a gradient before it does F2, rank 1 for F2 before it does a gradient",
)

# %% nbgrader="tests" grade_id="test_end_of_hidden" points=2
# Graded with tests that you do not see: unequal stages (1 point), more orders that never end (1 point).
### BEGIN HIDDEN TESTS


def ladder(p, m, ahead):
    """Ranks that run ahead by `ahead[rank]` micro-batches, then alternate."""
    order = []
    for rank in range(p):
        forward, backward = [f"F{k}" for k in range(m)], [f"B{k}" for k in range(m)]
        first = min(ahead[rank], m)
        words = forward[:first]
        for word in forward[first:]:
            words += [word, backward.pop(0)]
        order.append(words + backward)
    return order


def settled(order, times):
    """Ends by longest paths: all words at once, again and again, until nothing moves; None if it goes on."""
    row = [(rank, place) for rank, words in enumerate(order) for place in range(len(words))]
    names = {
        (words[place][0], rank, words[place][1:]): (rank, place)
        for rank, words in enumerate(order)
        for place in range(len(words))
    }
    ends = dict.fromkeys(row, 0.0)
    for _ in range(len(row) + 2):
        following = {}
        for rank, place in row:
            kind, batch = order[rank][place][0], order[rank][place][1:]
            needs = [("F", rank - 1, batch)] if kind == "F" and rank else []
            if kind == "B":
                needs = [("F", rank, batch), ("B", rank + 1, batch)][: 1 + (rank + 1 < len(order))]
            if any(need not in names for need in needs):
                return None
            before = [ends[names[need]] for need in needs] + [ends[rank, place - 1] if place else 0.0]
            following[rank, place] = max(before) + times[rank][kind == "B"]
        if following == ends:
            return max(ends.values())
        ends = following
    return None


unequal = [(1, 2), (2, 3), (4, 1), (1, 1)]
works = [ladder(4, 6, ahead) for ahead in ((3, 2, 1, 0), (6, 6, 6, 6), (5, 3, 3, 0))]
works.append([["F1", "F0", "B1", "B0"]] * 4)  # in another order, the same on all ranks
stuck = [ladder(4, 6, (2, 2, 1, 3)), [["F0", "B0"], ["B0", "F0"]], [["F0", "F1"], ["F2"]], [["B0"]]]
points_for(
    [
        (1, lambda: [expect_close(end_of(o, unequal), settled(o, unequal), hint=f"{o}") for o in works]),
        (
            1,
            lambda: [
                expect_close(end_of(works[0], [(1, 2)] * 4), 27, hint=f"ends, all stages equal: {works[0]}"),
                *(
                    expect_equal(
                        end_of(o, unequal[: len(o)]), settled(o, unequal[: len(o)]), hint=f"never ends: {o}"
                    )
                    for o in stuck
                ),
            ],
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. Place layers where memory is short (4 points)
# The slowest stage sets the pace, so the largest sum of costs should be as small as it can. But under 1F1B
# rank r holds min(m, p - r) micro-batches, so an early stage needs more memory for the same layers. Cut the
# layers, in their order, into p stages of at least one layer, so that every stage fits and the slowest is as
# fast as possible. If several cuts are, any of them will do.


# %% nbgrader="solution" grade_id="place_layers"
def place_layers(costs, weights, kept, p, m, memory):
    """Return the number of layers of each stage, a list of p numbers, or None if no cut fits.

    Args:
        costs: for each layer its time for F and B together.
        weights: for each layer the GB of its weights, gradients and optimizer state.
        kept: for each layer the GB of activations that it keeps for one micro-batch.
        p: number of stages.
        m: number of micro-batches.
        memory: GB of a device: sum of `weights`, and of `kept` times min(m, p - r), at most.
    """
    ### BEGIN SOLUTION
    n = len(costs)
    best = {0: (0.0, [])}  # layers placed so far -> (slowest stage, sizes)
    for stage in range(p):
        copies, following = min(m, p - stage), {}
        for start, (slowest, sizes) in best.items():
            for end in range(start + 1, n + 1):
                if sum(weights[start:end]) + copies * sum(kept[start:end]) > memory:
                    break
                candidate = max(slowest, sum(costs[start:end])), [*sizes, end - start]
                if end not in following or candidate < following[end]:
                    following[end] = candidate
        best = following
    return best[n][1] if n in best else None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_place_layers" points=2
def slowest(costs, sizes):
    ends = list(itertools.accumulate(sizes))
    return max(sum(costs[end - size : end]) for size, end in zip(sizes, ends, strict=True))


costs = [1, 1, 1, 1, 4]
sizes = place_layers(costs, [0] * 5, [0] * 5, 2, 8, 10)
expect_equal([len(sizes), sum(sizes)], [2, 5], hint="two stages that hold the five layers")
expect_close(slowest(costs, sizes), 4, hint="memory is no matter here: four layers of 1, and the one of 4")
sizes = place_layers([1] * 6, [1] * 6, [1] * 6, 2, 8, 9)
expect_equal(
    sizes, [3, 3], hint="rank 0 holds two micro-batches: three layers need 3 + 2 * 3 = 9 GB, which fits"
)
sizes = place_layers([1] * 6, [1] * 6, [1] * 6, 2, 8, 8)
expect_equal(
    sizes,
    [2, 4],
    hint="8 GB: rank 0 has room for 2 layers (2 + 2 * 2), rank 1 holds one micro-batch: 4 (4 + 4)",
)
expect_equal(place_layers([1] * 6, [1] * 6, [1] * 6, 2, 8, 7), None, hint="with 7 GB no cut fits")

# %% nbgrader="tests" grade_id="test_place_layers_hidden" points=2
# Graded with tests that you do not see: stages that fit (1 point) and are as fast as possible (1 point).
### BEGIN HIDDEN TESTS
cases = []
for number in range(12):
    source = torch.Generator()
    source.manual_seed(100 + number)
    n, p = 7 + number % 3, 2 + number % 4
    costs, weights, kept = torch.randint(1, 9, (3, n), generator=source).tolist()
    cases.append((costs, weights, kept, p, (1, 2, 16)[number % 3], (26, 40, 70, 1000, 30, 12)[number % 6]))


def needs_memory(case, sizes):
    weights, kept, p, m = case[1:5]
    start, needs = 0, []
    for stage, size in enumerate(sizes):
        end = start + size
        needs.append(sum(weights[start:end]) + min(m, p - stage) * sum(kept[start:end]))
        start = end
    return max(needs)


def every_fit(case):
    n, p = len(case[0]), case[3]
    cuts = itertools.combinations(range(1, n), p - 1)
    sizes = [[b - a for a, b in itertools.pairwise((0, *cut, n))] for cut in cuts]
    return [s for s in sizes if needs_memory(case, s) <= case[5]]


def expect_fits():
    for case in cases:
        sizes = place_layers(*case)
        expect_equal(sizes is None, not every_fit(case), hint=f"a cut exists, or none does, for {case}")
        if sizes is not None:
            good = len(sizes) == case[3] and sum(sizes) == len(case[0]) and min(sizes) >= 1
            expect_equal(good, True, hint=f"{sizes} is no cut of {len(case[0])} layers into {case[3]} stages")
            expect_equal(needs_memory(case, sizes) <= case[5], True, hint=f"{sizes} does not fit, for {case}")


def expect_fast():
    for case in cases:
        fitting, sizes = every_fit(case), place_layers(*case)
        if fitting:
            want = min(slowest_of(case[0], s) for s in fitting)
            expect_close(slowest_of(case[0], sizes), want, hint=f"the slowest stage, for {case}")


def slowest_of(costs, sizes):
    starts = [0, *itertools.accumulate(sizes)]
    return max(sum(costs[a:b]) for a, b in itertools.pairwise(starts))


points_for([(1, expect_fits), (1, expect_fast)])
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. A step on real processes (4 points)
# Every rank has one stage and calls this function. Use `dist.send` and `dist.recv` (or `isend`, `irecv`) of
# hidden states and their gradients; any order of the micro-batches that ends is fine. Micro-batches have
# different numbers of rows and of valid targets.


# %% nbgrader="solution" grade_id="pipeline_step"
def pipeline_step(stage, micro_batches, hidden_size):
    """Set every `p.grad` of this rank's stage to the gradient of the mean loss; return that mean.

    Every `p.grad` is None before. The loss is the cross-entropy over all valid targets of *all*
    micro-batches: a mean over tokens, not over micro-batches.

    Args:
        stage: this rank's part of the model, (rows, features) to (rows, hidden_size), on the last rank to
            (rows, classes); float64.
        micro_batches: list of (inputs, targets), the same on every rank: (rows, features) float64 and (rows,)
            whole numbers, where -100 is no target. The first rank uses the inputs, the last the targets.
        hidden_size: columns of what a stage hands to the next.
    Returns: the mean loss as a float on the last rank, None on the others.
    """
    ### BEGIN SOLUTION
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    num_valid = sum(int((targets != -100).sum()) for _, targets in micro_batches)
    kept, total = [], 0.0
    for x, targets in micro_batches:
        if rank > 0:
            x = torch.empty(len(x), hidden_size, dtype=torch.float64)
            dist.recv(x, rank - 1)
            x.requires_grad_()
        y = stage(x)
        if rank < last:
            dist.send(y.detach(), rank + 1)
        else:
            y = cross_entropy(y, targets, reduction="sum", ignore_index=-100) / num_valid
            total += y.item()
        kept.append((x, y))
    for x, y in kept:
        gradient = None
        if rank < last:
            gradient = torch.empty_like(y)
            dist.recv(gradient, rank + 1)
        y.backward(gradient)
        if rank > 0:
            dist.send(x.grad, rank - 1)
    return total if rank == last else None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_pipeline_step" points=2
def step_on_ranks(matrices, micro_batches):
    from coursekit.parallel import launch

    def on_rank():
        rank, last = dist.get_rank(), dist.get_world_size() - 1
        linear = nn.Linear(matrices[rank].shape[1], matrices[rank].shape[0], bias=False).double()
        linear.load_state_dict({"weight": matrices[rank]})
        stage = linear if rank == last else nn.Sequential(linear, nn.Tanh())
        loss = pipeline_step(stage, micro_batches, 5)
        return [loss, linear.weight.grad]

    return launch(on_rank, len(matrices), timeout_seconds=15)


matrices = [draw(5, 4), draw(3, 5, seed=1)]
micro_batches = [(draw(2, 4, seed=k), torch.tensor([k % 3, (k + 1) % 3])) for k in range(3)]
whole = [matrix.clone().requires_grad_() for matrix in matrices]
inputs = torch.cat([x for x, _ in micro_batches])
logits = torch.tanh(inputs @ whole[0].T) @ whole[1].T
loss = cross_entropy(logits, torch.cat([targets for _, targets in micro_batches]))
wants = torch.autograd.grad(loss, whole)
got = probe(step_on_ranks, matrices, micro_batches)
expect_equal(got[0][0], None, hint="only the last rank knows the loss")
expect_close(
    got[1][0], loss.item(), rtol=1e-10, hint="mean loss over the 6 targets of all micro-batches, as a float"
)
for rank in (1, 0):
    expect_close(
        got[rank][1],
        wants[rank],
        rtol=1e-10,
        hint=f"gradient on rank {rank}; is the loss divided by all 6 targets, and do gradients add up?",
    )


# %% nbgrader="tests" grade_id="test_pipeline_step_hidden" points=2
# Graded with tests that you do not see: three ranks, unequal micro-batches, one without a valid target.
### BEGIN HIDDEN TESTS
def step_on_three(matrices, micro_batches):
    from coursekit.parallel import launch

    def on_rank():
        rank, last = dist.get_rank(), dist.get_world_size() - 1
        linear = nn.Linear(matrices[rank].shape[1], matrices[rank].shape[0], bias=False).double()
        linear.load_state_dict({"weight": matrices[rank]})
        stage = linear if rank == last else nn.Sequential(linear, nn.Tanh())
        loss = pipeline_step(stage, micro_batches, 6)
        return [loss, linear.weight.grad]

    return launch(on_rank, len(matrices), timeout_seconds=15)


matrices = [draw(6, 4, seed=10), draw(6, 6, seed=11), draw(3, 6, seed=12)]
targets = [[0, 1, 2, 0, 1], [2, -100], [-100, -100, -100], [1]]
micro_batches = [(draw(len(t), 4, seed=20 + k), torch.tensor(t)) for k, t in enumerate(targets)]
whole = [matrix.clone().requires_grad_() for matrix in matrices]
hidden = torch.cat([x for x, _ in micro_batches])
for matrix in whole[:-1]:
    hidden = torch.tanh(hidden @ matrix.T)
loss = cross_entropy(hidden @ whole[-1].T, torch.cat([t for _, t in micro_batches]))
wants = torch.autograd.grad(loss, whole)
got = probe(step_on_three, matrices, micro_batches)
expect_close(
    got[2][0], loss.item(), rtol=1e-10, hint="mean over the 7 valid targets of four unequal micro-batches"
)
for rank in (2, 1, 0):
    expect_close(got[rank][1], wants[rank], rtol=1e-10, hint=f"three ranks: gradient on rank {rank}")
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# ## Question. A pipeline that is slower than the formula (2 points)
# A team runs 8 stages with 1F1B and 56 micro-batches and expects an idle share of 7 / 63 = 11 %. They measure
# 31 % on rank 0, and much the same on ranks 1 to 6, but next to nothing on rank 7 between its first and its
# last action. All stages have equally many layers. What is the likely cause, what number would you look at to
# make sure, and what would you change? Somebody suggests more micro-batches: will that help?
#
# ### BEGIN SOLUTION
# **Model answer.** Rank 7 never waits: it is the slowest stage, and the others wait for it. It has the head
# and the loss besides its layers. Look at the time of F and B on each rank, without the waiting: rank 7's
# should stand out. With c for the others and c7 for it, a step takes 56 c7 + 7 c, of which the others work
# 56 c; 31 % idle gives c7 = 1.3 c. Remedy: fewer layers on the last stage (and on the first, if the embedding
# costs), or a head divided over more ranks. More micro-batches shrink the ends of the pipe alone: idle time
# goes from 31 % towards 1 - c / c7, about 24 %, and not to 0.
#
# **Rubric.** 1 point: rank 7 as the slowest stage, from the fact that it alone does not wait, with head and
# loss as the reason and the time of F and B by rank as the check. 1 point: moving layers away from it, and
# that more micro-batches help only with the part that the formula counts. Half points are fine.
# ### END SOLUTION
