# ---
# coursekit:
#   title: Mixture of experts
#   forbidden:
#     - coursekit.plan
#     - coursekit.models
#     - coursekit.parallel
#     - coursekit.formulas
# ---

# %% [markdown]
# # Mixture of experts
# Five tasks and a question, 16 points, about 75 minutes. You write a balance loss, count what a token
# meets, combine gradients where experts are spread and copied, write a router that cannot look into the
# future, and place experts on devices so that steps wait least. The course's ready-made routers, plans and
# collectives are not allowed here.

# %% nbgrader="locked" grade_id="setup"
import itertools

import numpy as np
import torch

from coursekit.notebooks import expect_close, expect_equal, points_for, probe


def numbers(*shape, seed=0):
    """Standard normal float64 numbers, always the same ones. Used by the tests."""
    source = torch.Generator()
    source.manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=source)


# %% [markdown]
# ## Task 1. The balance loss of several ranks (3 points)
# Each rank has router logits of its own tokens, as many on each. Return what one rank contributes: the mean
# over ranks of your values must be E Σ f_i P_i of the joined batch, with f the shares of *all* choices (each
# token chooses its k largest logits). Use the loads of the whole batch, which are given, and this rank's
# logits.


# %% nbgrader="solution" grade_id="balance_loss"
def balance_loss(logits, total_load):
    """Return this rank's balance loss, a tensor without dimensions that logits get a gradient from.

    Args:
        logits: (tokens, E) of this rank, float64.
        total_load: (E,) integers, choices on each expert over all ranks.
    """
    ### BEGIN SOLUTION
    shares = total_load / total_load.sum()
    return logits.shape[1] * (shares * logits.softmax(-1).mean(0)).sum()
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_balance_loss" points=1
even = torch.zeros(6, 3, dtype=torch.float64)
expect_close(balance_loss(even, torch.tensor([2, 2, 2])), 1.0, hint="an even spread costs 1, whatever E is")
steep = torch.tensor([[50.0, 0.0, 0.0, 0.0]], dtype=torch.float64).repeat(5, 1)
expect_close(
    balance_loss(steep, torch.tensor([5, 0, 0, 0])), 4.0, hint="all on one of 4 experts, surely: E / k = 4"
)

# %% nbgrader="tests" grade_id="test_balance_loss_hidden" points=2
# Graded with tests that you do not see: the mean of three ranks (1 point), and gradients (1 point).
### BEGIN HIDDEN TESTS


def joined_loss(parts, top_k):
    whole = np.concatenate([part.numpy() for part in parts])
    p = np.exp(whole) / np.exp(whole).sum(1, keepdims=True)
    load = np.zeros(whole.shape[1], dtype=int)
    for row in whole:
        for expert in sorted(range(len(row)), key=lambda i: -row[i])[:top_k]:
            load[expert] += 1
    return load, whole.shape[1] * float((load / load.sum()) @ p.mean(0))


def gradient(logits, total_load):
    logits = logits.clone().requires_grad_()
    balance_loss(logits, total_load).backward()
    return logits.grad


def expect_mean():
    for top_k in (1, 2):
        parts = [numbers(6, 4, seed=k) for k in range(3)]
        load, want = joined_loss(parts, top_k)
        got = [float(balance_loss(part, torch.tensor(load))) for part in parts]
        expect_close(sum(got) / 3, want, hint=f"mean over 3 ranks, k = {top_k}")


def expect_gradient():
    logits, load = numbers(5, 3, seed=9), torch.tensor([7, 1, 2])
    p = logits.numpy()
    p = np.exp(p) / np.exp(p).sum(1, keepdims=True)
    f = np.array([0.7, 0.1, 0.2])
    want = 3 / 5 * p * (f - (p @ f)[:, None])
    got = probe(gradient, logits, load)
    expect_close(got, torch.tensor(want), hint="gradient of the logits: f is a constant, P is not")


points_for([(1, expect_mean), (1, expect_gradient)])
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. What a token meets (2 points)
# A decoder in the style of DeepSeek: in each of `layers` layers attention of `attention` parameters, and a
# feed-forward part. In the first `dense_layers` layers that is one gated network of inner width `dense_ff`
# (three matrices of d x width); in all others a router (d x experts), `experts` routed gated networks of
# inner width `expert_ff`, of which a token meets `top_k`, and `shared` more that every token meets. The
# vocabulary's table and the head are `vocab` x d each; a token looks *up* the table, which does not count as
# met. The router counts as met.


# %% nbgrader="solution" grade_id="sizes"
def sizes(d, layers, attention, dense_layers, dense_ff, experts, expert_ff, top_k, shared, vocab):
    """Return (total, met): the parameters of the model, and those that a token meets. Integers."""
    ### BEGIN SOLUTION
    sparse = layers - dense_layers
    one = 3 * d * expert_ff
    always = layers * attention + dense_layers * 3 * d * dense_ff + vocab * d
    always += sparse * (d * experts + shared * one)
    return always + vocab * d + sparse * experts * one, always + sparse * top_k * one
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_sizes" points=1
got = sizes(4, 2, 100, 0, 8, 3, 5, 1, 0, 10)
expect_equal(
    list(got),
    [40 + 40 + 200 + 2 * (12 + 3 * 60), 40 + 200 + 2 * (12 + 60)],
    hint="2 layers, 3 experts of 3 x 4 x 5, routers of 4 x 3, no dense layer, nothing shared",
)

# %% nbgrader="tests" grade_id="test_sizes_hidden" points=1
# Graded with tests that you do not see: dense layers, shared experts, and a published model.
### BEGIN HIDDEN TESTS
expect_equal(
    list(sizes(2, 3, 10, 1, 7, 4, 3, 2, 1, 5)),
    [10 + 10 + 30 + 42 + 2 * (8 + 5 * 18), 10 + 30 + 42 + 2 * (8 + 3 * 18)],
    hint="3 layers, the first one dense, 4 routed experts and a shared one",
)
total, met = (int(n) for n in sizes(7168, 61, 187_105_280, 3, 18_432, 256, 2048, 8, 1, 129_280))
expect_equal([round(total / 1e9), round(met / 1e9)], [671, 37], hint="DeepSeek-V3, in billions")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 3. Spread and copied (3 points)
# dp x ep ranks have as many tokens each; rank r stands at place (r // ep, r % ep). The ep ranks of a row
# share the experts: a rank at column j holds expert j. The ranks of a column hold the *same* expert. Each
# rank's loss is the mean over its own tokens. After the backward pass a rank has the gradient of its own
# loss for the router, and for its expert the *sum* of what the losses of its row gave. Return the gradients
# of the mean of all ranks' losses.


# %% nbgrader="solution" grade_id="combine"
def combine(routers, experts, dp, ep):
    """Return (router, experts): the router's gradient, and a list of ep gradients, one an expert.

    Args:
        routers: list of dp * ep arrays, by rank.
        experts: list of dp * ep arrays, by rank.
        dp: number of rows.
        ep: number of columns, and of experts.
    """
    ### BEGIN SOLUTION
    world = dp * ep
    return sum(routers) / world, [sum(experts[j::ep]) / world for j in range(ep)]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_combine" points=1
router, experts = combine([np.array([1.0]), np.array([3.0])], [np.array([4.0]), np.array([10.0])], 1, 2)
expect_close(router, np.array([2.0]), hint="the router is on both ranks: a mean of 1 and 3")
expect_close(
    [experts[0], experts[1]],
    [np.array([2.0]), np.array([5.0])],
    hint="two different experts, each with the sum over both ranks' losses: divide by 2, mix nothing",
)

# %% nbgrader="tests" grade_id="test_combine_hidden" points=2
# Graded with tests that you do not see: copies alone (1 point), copies of spread experts (1 point).
### BEGIN HIDDEN TESTS


def expect_combined(dp, ep):
    source = np.random.default_rng(dp * 10 + ep)
    world = dp * ep
    # terms[q, j]: what the loss of rank q gives to expert j. The mean of the losses gives the mean over q.
    terms, router_terms = source.normal(size=(world, ep, 3)), source.normal(size=(world, 2))
    left = [terms[r // ep * ep : r // ep * ep + ep, r % ep].sum(0) for r in range(world)]
    router, experts = combine(list(router_terms), left, dp, ep)
    expect_close(router, router_terms.mean(0), hint=f"router, {dp} x {ep} ranks")
    expect_close(list(experts), list(terms.mean(0)), hint=f"experts, {dp} rows of {ep} ranks")


points_for(
    [
        (1, lambda: [expect_combined(dp, 1) for dp in (1, 3)]),
        (1, lambda: [expect_combined(*grid) for grid in ((2, 2), (3, 4), (4, 2))]),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. Experts that choose, without the future (3 points)
# In *expert choice* each expert takes the tokens that score highest for it, so that loads are even by
# construction. But whether token 3 is among the best depends on token 9, which a language model must not
# know when it computes token 3. Write a variant that is causal: expert i takes token t if fewer than m(t)
# of the tokens *before* t have a strictly larger score for i, where m(t) = ceil(rate (t + 1)), t from 0.


# %% nbgrader="solution" grade_id="causal_choice"
def causal_choice(scores, rate):
    """Return (tokens, E) booleans: whether each expert takes each token.

    Args:
        scores: (tokens, E) float64, in the order of the sequence.
        rate: share of the tokens that an expert should take, 0 < rate <= 1.
    """
    ### BEGIN SOLUTION
    n = len(scores)
    larger = scores[None, :, :] > scores[:, None, :]  # [t, s, i]: token s beats t at expert i
    earlier = torch.ones(n, n, dtype=torch.bool).tril(-1)
    beaten_by = (larger & earlier[:, :, None]).sum(1)
    places = torch.ceil(rate * torch.arange(1, n + 1, dtype=torch.float64))
    return beaten_by < places[:, None]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_causal_choice" points=1
scores = torch.tensor([[1.0], [2.0], [0.0], [3.0]], dtype=torch.float64)
expect_equal(
    causal_choice(scores, 0.5).tolist(),
    [[True], [True], [False], [True]],
    hint="rate 0.5 gives m = 1, 1, 2, 2; token 2 has two larger ones before it",
)
before = causal_choice(scores[:2], 0.5).tolist()
expect_equal(causal_choice(scores, 0.5)[:2].tolist(), before, hint="tokens 2 and 3 changed what 0 and 1 got")

# %% nbgrader="tests" grade_id="test_causal_choice_hidden" points=2
# Graded with tests that you do not see: many experts and rates (1 point), equal scores (1 point).
### BEGIN HIDDEN TESTS


def expect_choice(scores, rate):
    rows = scores.tolist()
    want = []
    for t, row in enumerate(rows):
        room = -int(-rate * (t + 1) // 1)
        want.append([sum(rows[s][i] > row[i] for s in range(t)) < room for i in range(len(row))])
    got = causal_choice(scores, rate).tolist()
    expect_equal(got, want, hint=f"{len(rows)} tokens, rate {rate}: which experts take which tokens")


points_for(
    [
        (1, lambda: [expect_choice(numbers(15, 4, seed=k), rate) for k, rate in enumerate((0.25, 0.5, 1.0))]),
        (1, lambda: [expect_choice(numbers(12, 3, seed=k).round(), 0.25) for k in range(4)]),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. Place the experts (3 points)
# Measured loads of E experts in several steps. Each of `devices` devices shall hold E / devices experts. A
# step takes as long as its busiest device, so a placement costs the *sum over steps of the largest load of
# a device in that step*. Even totals are not the aim: two experts that are busy in different steps go well
# together. E is at most 8: you may try everything.


# %% nbgrader="solution" grade_id="place"
def place(loads, devices):
    """Return a list of E device numbers, from 0, of a placement with the least cost.

    Args:
        loads: list of steps, each a list of E loads.
        devices: number of devices; it divides E.
    """
    ### BEGIN SOLUTION
    n_experts = len(loads[0])
    room = n_experts // devices
    table = np.array(loads, dtype=float)

    def complete(groups, left):
        if not left:
            yield groups
            return
        for others in itertools.combinations(left[1:], room - 1):
            group = (left[0], *others)
            yield from complete([*groups, group], [e for e in left if e not in group])

    def cost(groups):
        return np.max([table[:, list(group)].sum(1) for group in groups], axis=0).sum()

    best = min(complete([], list(range(n_experts))), key=cost)
    return [next(d for d, group in enumerate(best) if e in group) for e in range(n_experts)]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_place" points=1
got = list(place([[9, 9, 0, 0], [0, 0, 9, 9]], 2))
expect_equal(sorted(got), [0, 0, 1, 1], hint="two devices, two experts on each")
expect_equal(
    got[0] == got[1], False, hint="experts 0 and 1 are busy in the same step: together they cost 18 a step"
)

# %% nbgrader="tests" grade_id="test_place_hidden" points=2
# Graded with tests that you do not see: two devices (1 point), four devices and many steps (1 point).
### BEGIN HIDDEN TESTS


def cost_of(placement, loads, devices):
    return sum(
        max(sum(x for x, where in zip(step, placement, strict=True) if where == d) for d in range(devices))
        for step in loads
    )


def expect_best(n_experts, devices, steps, seed):
    source = np.random.default_rng(seed)
    loads = (source.gamma(0.4, size=(steps, n_experts)) * 100).round().astype(int).tolist()
    got = [int(d) for d in place(loads, devices)]
    full = sorted(list(range(devices)) * (n_experts // devices))
    expect_equal(sorted(got), full, hint="every device holds as many experts")
    best = min(cost_of(p, loads, devices) for p in set(itertools.permutations(full)))
    expect_equal(cost_of(got, loads, devices), best, hint=f"cost on {devices} devices, {steps} steps")


points_for(
    [
        (1, lambda: [expect_best(6, 2, steps, steps) for steps in (1, 3, 8)]),
        (1, lambda: [expect_best(6, 3, steps, steps) for steps in (2, 6, 12)]),
    ]
)
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# ## Question. A perfect balance (2 points)
# A team trains a layer of 64 experts, one a token, spread over 8 ranks. The balance loss is 1.00 from the
# first step to the last, and loads are even. Yet the model is hardly better than a dense one of the size of
# a single expert. Name two different mistakes, each of which would give this picture; say for each why the
# loads are even nevertheless; and give a measurement of the first hour that tells the two from each other.
#
# ### BEGIN SOLUTION
# **Model answer.** (A) The gate is divided by the sum of the chosen gates, with one choice the constant 1.
# The task's loss then has no gradient for the router. Only the balance loss trains it, so it spreads tokens
# evenly and without regard to what they are: each expert sees a random sample and learns the same average
# function. (B) The gradients of all parameters are averaged over the ranks, those of the spread experts too,
# as a wrapper for data parallelism does. Experts of the same place on eight ranks get the same steps and
# stay as different as they were drawn; router and balance loss work as ever, so loads are even. (C) The
# factor of the balance loss is so large that the router heeds nothing else.
# What tells them apart: the norm of the router's gradient with the balance loss switched off is exactly 0 in
# (A) only. The difference of two ranks' experts, divided by what it was at the start, stays exactly 1 in (B)
# only. In (C) the router's gradient from the balance loss is far larger than that of the task.
#
# **Rubric.** 1 point: two mistakes that fit (others than these may), each with the reason for the even loads.
# 1 point: a measurement that comes out differently for the two; loads and the balance loss do not. Half
# points are fine.
# ### END SOLUTION
