# ---
# coursekit:
#   title: Dynamic batch size
#   forbidden: [coursekit.train, coursekit.plan, coursekit.formulas, torch.nn.parallel]
# ---

# %% [markdown]
# # Dynamic batch size
#
# Four functions to write and a question to answer, 20 points, about 70 minutes. You mend a step that
# survives a lack of memory and computes the wrong thing, let ranks agree on a size, and build two tools that
# no library ships: a search that finds the largest micro-batch in a handful of trials without ever running
# out of memory, and batches of unequal texts under a limit that grows faster than their length.
#
# Nothing here fills your computer: what runs out of memory is a stand-in that counts.

# %% nbgrader="locked" grade_id="setup"
import numpy as np
import torch
import torch.distributed as dist
from coursekit.notebooks import expect_close, expect_equal, points_for, probe


class SharedDevice:
    """A device on which others work as well: call number i has room for `limits[i]` rows, then for the last.

    `device(x)` returns x, or raises MemoryError.
    """

    def __init__(self, limits):
        self.limits, self.calls = list(limits), 0

    def __call__(self, x):
        """Return x if its rows fit now."""
        limit = self.limits[min(self.calls, len(self.limits) - 1)]
        self.calls += 1
        if len(x) > limit:
            raise MemoryError(f"{len(x)} rows, and room for {limit}")
        return x


# %% [markdown]
# ## 1. A step that survives, and what it computes (5 points)
#
# This step trains a linear model on noisy rows, in pieces, and makes the pieces smaller when memory runs
# out. A colleague wrote it. It survives nearly everything, and it has **five faults**: two in the gradient
# after a failure, one in the gradient without any failure, and two in what it does with errors.


# %%
def colleagues_step(w, rows, targets, device, size, generator):
    w.grad = None
    while True:
        try:
            noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
            pieces = list(zip(rows.split(size), noise.split(size), targets.split(size), strict=True))
            for x, n, y in pieces:
                loss = ((device(x + n) @ w - y) ** 2).mean()
                (loss / len(pieces)).backward()
            return size
        except Exception:
            size = size // 2


# %% nbgrader="solution" grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    """Set `w.grad` to the gradient of the mean of (device(x + noise) @ w - y)² over all rows; return a size.

    w: tensor (d,) that requires a gradient; what its `grad` holds before the call must not matter.
    rows, targets: (n, d) and (n,).
    device: called with the rows of one piece at a time, at most `size` of them; raises MemoryError if they
        do not fit. Then the whole step is repeated with pieces of half the size, rounded down.
    generator: gives the noise, 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype), one
        draw for the step. However often the step is repeated, noise and the generator's state afterwards
        are those of a step that was not.
    Returns: the size of the pieces with which the step came through.
    Raises: MemoryError if pieces of one row do not fit. Other errors pass through, at once.
    """
    ### BEGIN SOLUTION
    noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    while True:
        w.grad = None
        try:
            for x, n, y in zip(rows.split(size), noise.split(size), targets.split(size), strict=True):
                loss = ((device(x + n) @ w - y) ** 2).sum() / len(rows)
                loss.backward()
            return size
        except MemoryError:
            if size == 1:
                raise
        size //= 2
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_robust_step" points=4
def run_step(w, rows, targets, limits, size):
    """The gradient and size, or the name of the error; the next number of the generator."""
    w = w.clone().requires_grad_()
    w.grad = torch.ones_like(w)
    generator = torch.Generator().manual_seed(3)
    device = SharedDevice(limits)
    if limits == ["wrong"]:
        errors = [ValueError("not a matter of memory")]

        def device(x):
            if errors:  # the first call only: who tries again gets through
                raise errors.pop()
            return x

    try:
        size = robust_step(w, rows, targets, device, size, generator)
    except NotImplementedError:
        raise
    except Exception as error:
        return error.__class__.__name__, [], 0.0
    return size, w.grad, torch.rand((), generator=generator).item()


def by_hand(w, rows, targets):
    """2/n xT (x w - y), with the noise of a single draw, and the generator's next number."""
    generator = torch.Generator().manual_seed(3)
    x = rows + 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    return 2 * x.T @ (x @ w - targets) / len(rows), torch.rand((), generator=generator).item()


generator = torch.Generator().manual_seed(1)
rows, w = (
    torch.randn(11, 3, dtype=torch.float64, generator=generator),
    torch.tensor([1.0, -2.0, 0.5]).double(),
)
targets = torch.randn(11, dtype=torch.float64, generator=generator)


def expect_step(limits, size, want_size, hint, twelve=False):
    """Right gradient and size; twelve rows are cut evenly."""
    x, y = (torch.cat([rows, rows[:1]]), torch.cat([targets, targets[:1]])) if twelve else (rows, targets)
    got_size, gradient, number = probe(run_step, w, x, y, limits, size)
    want, want_number = by_hand(w, x, y)
    expect_equal(got_size, want_size, hint=f"{hint}: the size that is returned")
    expect_close(gradient, want, rtol=1e-9, hint=f"{hint}: the gradient")
    expect_close(number, want_number, hint=f"{hint}: the generator's next number")


def expect_error(limits, want, hint):
    """The right error, of a step that gives a gradient, right or wrong, where nothing fails."""
    size, gradient, _ = probe(run_step, w, rows, targets, [99], 11)
    expect_equal(size, 11, hint="11 rows in one piece, no failure: the size that is returned")
    spread = float(np.ptp(np.asarray(gradient, float)))
    expect_equal(spread > 0, True, hint="11 rows in one piece, no failure: w.grad must hold a gradient")
    expect_equal(probe(run_step, w, rows, targets, limits, 4)[0], want, hint=hint)


points_for(
    [
        (
            1,
            lambda: expect_step(
                [99, 99, 3, 99], 4, 2, "12 rows in fours, the third does not fit", twelve=True
            ),
        ),
        (1, lambda: expect_step([6, 99], 12, 6, "12 rows, the first attempt fails at once", twelve=True)),
        (1, lambda: expect_step([99], 4, 4, "11 rows in pieces of 4, 4 and 3, no failure")),
        (0.5, lambda: expect_error([0], "MemoryError", "not even one row fits")),
        (
            0.5,
            lambda: expect_error(
                ["wrong"],
                "ValueError",
                "an error that has nothing to do with memory must not be swallowed, nor the step tried again",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_robust_step_hidden" points=1
# Graded with tests that you do not see: several failures, in the middle, of uneven pieces.
### BEGIN HIDDEN TESTS
def run_step(w, rows, targets, limits, size):
    w = w.clone().requires_grad_()
    generator = torch.Generator().manual_seed(6)
    size = robust_step(w, rows, targets, SharedDevice(limits), size, generator)
    return size, w.grad, torch.rand((), generator=generator).item()


draws = torch.Generator().manual_seed(2)
rows, targets = (torch.randn(*s, dtype=torch.float64, generator=draws) for s in ((23, 4), (23,)))
w = torch.randn(4, dtype=torch.float64, generator=draws)
same = torch.Generator().manual_seed(6)
x = rows + 0.1 * torch.randn(rows.shape, generator=same, dtype=rows.dtype)
want, number = 2 * x.T @ (x @ w - targets) / 23, torch.rand((), generator=same).item()
for limits, size, want_size in (
    ([9, 9, 1, 9, 9, 3, 9], 9, 2),
    ([9], 9, 9),
    ([30, 5, 5, 1], 23, 23),
    ([5], 22, 5),
):
    got_size, gradient, got_number = probe(run_step, w, rows, targets, limits, size)
    hint = f"23 rows, pieces of {size}, room for {limits}"
    expect_equal(got_size, want_size, hint=hint)
    expect_close(gradient, want, rtol=1e-9, hint=hint)
    expect_close(got_number, number, hint=f"{hint}: the generator's next number")
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Ranks agree (4 points)
#
# `attempt(size)` computes this rank's gradients for a step. It does not communicate, it may be called again
# with another size, and it raises MemoryError if memory runs out on *this* rank. Write the loop that all
# ranks run together. No rank may be left waiting for another, whatever happens.


# %% nbgrader="solution" grade_id="agreed_step"
def agreed_step(attempt, size):
    """Run `attempt` with a size that fits on every rank; return that size, the same on all.

    All ranks call this together with the same `size`. Where memory runs out on any rank, all try again with
    half the size, rounded down.

    Raises:
        MemoryError, on all ranks, if size 1 does not fit on some rank.
        The error itself on a rank where `attempt` raises anything else; RuntimeError on all other ranks.
    """
    ### BEGIN SOLUTION
    while True:
        state, failure = 0, None
        try:
            attempt(size)
        except MemoryError:
            state = 1
        except Exception as error:
            state, failure = 2, error
        worst = torch.tensor(state)
        dist.all_reduce(worst, op=dist.ReduceOp.MAX)  # the only call, and every rank makes it
        if worst == 0:
            return size
        if worst == 2:
            raise failure or RuntimeError("another rank failed, and not for lack of memory")
        if size == 1:
            raise MemoryError("one sequence does not fit on some rank")
        size //= 2
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_agreed_step" points=3
def on_ranks(limits, size):
    """For each rank what it returned or raised, and the size of its last attempt."""
    from coursekit.parallel import launch

    def run():
        limit, tried = limits[dist.get_rank()], []

        def attempt(size):
            tried.append(size)
            if limit == "broken":
                raise KeyError("not a matter of memory")
            if size > limit:
                raise MemoryError

        try:
            outcome = agreed_step(attempt, size)
        except NotImplementedError:
            raise
        except Exception as error:
            outcome = type(error).__name__
        # Would a rank that does not agree be noticed? Everybody meets here.
        together = torch.ones(1)
        dist.all_reduce(together)
        return outcome, tried[-1], together.item()

    return launch(run, len(limits), timeout_seconds=20)


def expect_ranks(limits, size, want, hint):
    """The outcome on each rank, of a loop that is right where nothing fails."""
    expect_equal(
        probe(on_ranks, [8, 8], 8), [(8, 8, 2.0)] * 2, hint="both ranks have room for 8 and start with it"
    )
    expect_equal(probe(on_ranks, limits, size), want, hint=hint)


points_for(
    [
        (0.5, lambda: expect_ranks([3, 3], 8, [(2, 2, 2.0)] * 2, "room for 3 on both ranks: 8, 4, 2")),
        (
            1.5,
            lambda: expect_ranks(
                [8, 3],
                8,
                [(2, 2, 2.0)] * 2,
                "room for 3 on rank 1: 8, 4, 2, on both ranks. (For each rank: the size returned, the "
                "size of its last attempt, and how many ranks met afterwards)",
            ),
        ),
        (
            1,
            lambda: expect_ranks(
                [8, 0], 4, [("MemoryError", 1, 2.0)] * 2, "nothing fits on rank 1: all raise"
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_agreed_step_hidden" points=1
# Graded with tests that you do not see: four ranks, and an error on one that is not about memory.
### BEGIN HIDDEN TESTS
def on_ranks(limits, size):
    from coursekit.parallel import launch

    def run():
        limit, tried = limits[dist.get_rank()], []

        def attempt(size):
            tried.append(size)
            if limit == "broken":
                raise KeyError("not a matter of memory")
            if size > limit:
                raise MemoryError

        try:
            outcome = agreed_step(attempt, size)
        except NotImplementedError:
            raise
        except Exception as error:
            outcome = type(error).__name__
        together = torch.ones(1)
        dist.all_reduce(together)
        return outcome, tried[-1], together.item()

    return launch(run, len(limits), timeout_seconds=20)


expect_equal(
    probe(on_ranks, [9, 5, 30, 2], 9),
    [(2, 2, 4.0)] * 4,
    hint="room for 9, 5, 30 and 2: 9, 4, 2 on all four ranks",
)
expect_equal(
    [outcome for outcome, _, _ in probe(on_ranks, [8, "broken", 2], 8)],
    ["RuntimeError", "KeyError", "RuntimeError"],
    hint="rank 1 raises KeyError in the same attempt in which rank 2 runs out of memory: nobody waits, "
    "nobody repeats",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. A search that does not fail (4 points)
#
# Doubling until memory runs out costs failures, and a failure on a GPU can cost minutes (a compiled step, a
# communicator in a bad state). But each trial that fits also tells how much it took at its peak. Write a
# search by questions: given what is known, which size next?
#
# Memory grows with the size, as a rule along a line, M0 + m b; libraries add jumps now and then, so do not
# trust the line further than you have checked. What is used must have been tried.


# %% nbgrader="solution" grade_id="next_trial"
def next_trial(trials, memory_bytes, max_size, margin):
    """Return ("try", size), or ("use", size) when the search is over, or ("none", 0) if nothing fits.

    trials: list of (size, peak_bytes) in the order in which they were made; peak_bytes is None where memory
        ran out. Empty at first. Larger sizes never have smaller peaks.
    memory_bytes: more than that cannot be had.
    max_size: the largest size that is of interest.
    margin: the size to find is the largest one, up to max_size, whose peak is at most
        (1 - margin) * memory_bytes.

    If the peaks lie on a line, at most 5 trials, and none of them may run out of memory as long as the peaks
    of two sizes next to each other differ by less than margin * memory_bytes. In any case at most
    2 log2(max_size) + 8 trials.
    """
    ### BEGIN SOLUTION
    goal = (1 - margin) * memory_bytes
    good = max((size for size, peak in trials if peak is not None and peak <= goal), default=0)
    bad = min((size for size, peak in trials if peak is None or peak > goal), default=max_size + 1)
    if bad - good == 1:
        return ("use", good) if good else ("none", 0)
    known = sorted((size, peak) for size, peak in trials if peak is not None)
    if len(known) < 2:
        guess = good + 1
    elif len(trials) < 5:  # the line through the two largest that are known
        (a, at_a), (b, at_b) = known[-2:]
        slope = (at_b - at_a) / (b - a)
        guess = b + int((goal - at_b) // slope) if slope > 0 else max_size
    else:
        guess = (good + bad) // 2
    return ("try", min(max(guess, good + 1), bad - 1))
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_next_trial" points=3
def search(peak_of, memory_bytes, max_size, margin, most=40):
    """Ask and answer until the search ends; (last answer, number of trials, number of failures)."""
    trials, failures = [], 0
    for _ in range(most):
        answer, size = next_trial([tuple(t) for t in trials], memory_bytes, max_size, margin)
        if answer != "try":
            tried = answer != "use" or size in [t for t, _ in trials]
            expect_equal(tried, True, hint=f"to use {size}, which nobody has tried; trials were {trials}")
            return (answer, size), len(trials), failures
        expect_equal(
            1 <= size <= max_size, True, hint=f"to try {size}, of at most {max_size}, after {trials}"
        )
        peak = peak_of(size)
        trials.append((size, peak if peak <= memory_bytes else None))
        failures += trials[-1][1] is None
    return ("did not end", most), most, failures


def expect_line(m0, m, memory_bytes, max_size, margin, want, hint):
    """The right size, in 5 trials, without a failure."""
    answer, num_trials, failures = search(lambda b: m0 + m * b, memory_bytes, max_size, margin)
    expect_equal(answer, want, hint=hint)
    expect_equal(num_trials <= 5, True, hint=f"{hint}: {num_trials} trials; a line needs 5 at most")
    expect_equal(failures, 0, hint=f"{hint}: trials that ran out of memory")


def expect_size(peak_of, max_size, want, hint):
    """The right size of 10,000 bytes with a margin of a tenth, in however many trials."""
    expect_equal(search(peak_of, 10_000, max_size, 0.1)[0], want, hint=hint)


points_for(
    [
        (1, lambda: expect_line(2000, 37, 10_000, 1000, 0.1, ("use", 189), "2,000 + 37 b, 9,000 of 10,000")),
        (
            0.5,
            lambda: (
                expect_line(500, 3, 10_000, 64, 0.1, ("use", 64), "500 + 3 b: max_size is the bound"),
                expect_size(lambda b: 500 + 3 * b, 5000, ("use", 2833), "500 + 3 b: memory is the bound"),
            ),
        ),
        (
            0.5,
            lambda: (
                expect_size(lambda b: 9500 + b, 64, ("none", 0), "one sequence is over the margin"),
                expect_size(lambda b: 8995 + b, 64, ("use", 5), "five sequences are just within it"),
            ),
        ),
        (
            1,
            lambda: expect_size(
                lambda b: 100 + 10 * b + (3000 if b > 200 else 0),
                2000,
                ("use", 590),
                "a jump of 3,000 between 200 and 201: the line of small sizes leads too far",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_next_trial_hidden" points=1
# Graded with tests that you do not see: many lines, curves and jumps; right size, number of trials, failures.
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(5)
for number in range(60):
    m0, m, max_size = int(rng.integers(0, 4000)), int(rng.integers(1, 60)), int(rng.integers(1, 3000))
    jump, at = (0, 0) if number % 3 == 0 else (int(rng.integers(0, 4000)), int(rng.integers(1, 400)))
    bend = 0.02 if number % 3 == 2 else 0.0
    costs = [m0 + m * b + jump * (b > at) + int(bend * b * b) for b in range(max_size + 1)]
    fits = [b for b in range(1, max_size + 1) if costs[b] <= 0.9 * 10_000]
    want = ("use", fits[-1]) if fits else ("none", 0)
    trials, answer = [], ("try", 0)
    while answer[0] == "try" and len(trials) <= 40:
        answer = next_trial(list(trials), 10_000, max_size, 0.1)
        if answer[0] == "try":
            cost = costs[answer[1]] if 1 <= answer[1] <= max_size else 0
            trials.append((answer[1], cost if cost <= 10_000 else None))
    hint = f"peaks {m0} + {m} b, {jump} more above {at}, bend {bend}, max_size {max_size}"
    tried = answer[0] != "use" or answer[1] in [size for size, _ in trials]
    expect_equal(tried, True, hint=f"{hint}: what is used must have been tried")
    expect_equal(tuple(answer), want, hint=hint)
    most = 5 if number % 3 == 0 else 2 * np.log2(max_size) + 8
    expect_equal(len(trials) <= most, True, hint=f"{hint}: {len(trials)} trials")
    if number % 3 == 0:
        expect_equal([t for t in trials if t[1] is None], [], hint=f"{hint}: trials that ran out of memory")
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Texts under a limit that is not a number of tokens (4 points)
#
# With attention that stores its scores, a batch of b texts, padded to its longest of t tokens, takes
#
#     bytes = b * (linear * t + quadratic * t * t)
#
# Pack texts into as few batches as possible. No batch may exceed the budget, ever.


# %% nbgrader="solution" grade_id="pack"
def pack(lengths, linear, quadratic, budget):
    """Return (batches, too_long): the fewest batches, lists of positions in `lengths`, and what fits nowhere.

    Every position is in exactly one batch, or in `too_long` (rising) if its text alone exceeds the budget.
    No batch is empty. Exactly the budget is allowed.
    """
    ### BEGIN SOLUTION

    def row_bytes(i):
        return linear * lengths[i] + quadratic * lengths[i] ** 2

    too_long = [i for i in range(len(lengths)) if row_bytes(i) > budget]
    # The longest of all must be somewhere; the best company for it are the next longest, as many as fit.
    rest = sorted(set(range(len(lengths))) - set(too_long), key=row_bytes, reverse=True)
    batches = []
    while rest:
        size = min(len(rest), int(budget // row_bytes(rest[0])) if row_bytes(rest[0]) else len(rest))
        batches.append(rest[:size])
        rest = rest[size:]
    return batches, too_long
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_pack" points=2
def expect_packed(lengths, linear, quadratic, budget, num_batches, too_long, hint):
    """Every text once, no batch above the budget, as few as possible."""
    batches, left = pack(list(lengths), linear, quadratic, budget)
    expect_equal(list(left), too_long, hint=f"{hint}: texts that exceed the budget alone")
    expect_equal(
        sorted([i for batch in batches for i in batch] + list(left)),
        list(range(len(lengths))),
        hint=f"{hint}: every text exactly once",
    )
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        cost = len(batch) * (linear * longest + quadratic * longest**2)
        expect_equal(
            cost <= budget, True, hint=f"{hint}: {len(batch)} texts of up to {longest} take {cost} bytes"
        )
    expect_equal(len(batches), num_batches, hint=f"{hint}: number of batches")


points_for(
    [
        (
            0.5,
            lambda: (
                expect_packed([4, 4, 4, 4], 1, 0, 8, 2, [], "four equal texts, two fit"),
                expect_packed([4, 4, 4, 4], 1, 0, 12, 2, [], "four equal texts, three fit"),
                expect_packed([4, 4, 4, 4], 1, 0, 20, 1, [], "four equal texts, five would fit"),
            ),
        ),
        (0.5, lambda: expect_packed([2, 9, 2, 3, 9, 2], 1, 0, 18, 2, [], "long and short ones mixed")),
        (0.5, lambda: expect_packed([10, 20, 5, 10], 1, 1, 230, 2, [1], "10 takes 110, 20 takes 420")),
        (0.5, lambda: expect_packed([6, 1, 5, 1, 6, 1, 5], 1, 0, 12, 3, [], "as few batches as possible")),
    ]
)

# %% nbgrader="tests" grade_id="test_pack_hidden" points=2
# Graded with tests that you do not see: many random lists, against the fewest batches possible.
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(8)
for number in range(40):
    lengths = rng.integers(1, 60, size=int(rng.integers(0, 25))).tolist()
    linear, quadratic = ((1, 0), (3, 1), (0, 2))[number % 3]
    budget = int(rng.integers(50, 4000))
    costs = [linear * t + quadratic * t * t for t in lengths]
    fitting = sorted(c for c in costs if c <= budget)
    # fewest[k]: batches for the k cheapest; some best packing has runs of the sorted list as batches.
    fewest = [0]
    for k in range(1, len(fitting) + 1):
        fewest.append(min(fewest[j] + 1 for j in range(k) if (k - j) * fitting[k - 1] <= budget))
    batches, left = pack(lengths[:], linear, quadratic, budget)
    hint = f"lengths {lengths}, {linear} t + {quadratic} t², budget {budget}"
    expect_equal(list(left), [i for i, c in enumerate(costs) if c > budget], hint=f"{hint}: too long")
    positions = sorted([i for batch in batches for i in batch] + list(left))
    expect_equal(positions, list(range(len(lengths))), hint=f"{hint}: every text exactly once")
    for batch in batches:
        expect_equal(len(batch) > 0, True, hint=f"{hint}: an empty batch")
        expect_equal(
            len(batch) * max(costs[i] for i in batch) <= budget, True, hint=f"{hint}: {batch} exceeds it"
        )
    expect_equal(len(batches), fewest[-1], hint=f"{hint}: number of batches, against the fewest possible")
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Explain a log (3 points)
#
# One GPU with 80 GB. A trainer that shrinks its micro-batch when memory runs out says:
#
#     step 0  micro-batch 64  allocated before  2.1 GB  out of memory
#     step 0  micro-batch 32  allocated before 61.7 GB  out of memory
#     step 0  micro-batch 16  allocated before 77.0 GB  out of memory
#     step 0  micro-batch  8  allocated before 78.9 GB  out of memory
#     ...
#     step 0  micro-batch  1  out of memory: giving up
#
# Started by hand with micro-batches of 32, the same script trains for days, with a peak of 46 GB. Its author
# now wants to start with 32 and to drop `global_batch_size=64`: each micro-batch is to be a step of its own,
# with `loss.mean().backward()`, `optimizer.step()` and `scheduler.step()`, "since the batch is what fits".
#
# Write six to ten sentences. What happened in step 0, and which number says so? Where does the line
# M0 + m b put M0, m and the largest micro-batch (46 GB at 32; M0 is what was allocated before the first
# attempt)? What changes in the training if the author's plan is carried out, and what should be written
# instead?

# %% [markdown] nbgrader="answer" grade_id="explain_log" points=3
# Your answer here.
#
# ### BEGIN SOLUTION
# **Model answer.** What an attempt had allocated was still there when the next began: 61.7 GB before the
# second, where 2.1 GB would be expected. Somebody refers to the failed attempt: as a rule the repetition
# stands inside `except`, where the error is alive, with its traceback, the frames of the forward pass and
# their activations (an error kept in a list, or a logger that keeps it, does the same). It is not
# fragmentation, since *allocated* memory grew, and not reserved memory. With M0 = 2.1 GB, m = (46 - 2.1) / 32
# = 1.37 GB a sequence; 80 GB hold (80 - 2.1) / 1.37 = 56 sequences, 50 with a margin of 10 %. So 64 did not
# fit, honestly, and 32 was no accident. If each micro-batch of 32 is a step of its own, the optimizer sees
# half the global batch, makes twice as many steps, and the schedule decays twice as fast per sample: another
# run. Write: two micro-batches a step, each one's *summed* loss over the count of the whole step, one
# optimizer step, one scheduler step; repeat after the `except` block, with gradients zeroed and the random
# state restored.
#
# **Rubric.** 1 point: something refers to the failed attempt (half), and the evidence is the 61.7 GB of
# *allocated* memory before the second attempt (half).
# 1 point: m about 1.37 GB and about 56 sequences (half a point for m alone; a margin may be taken off).
# 1 point: the optimizer's batch is halved and the schedule runs twice as fast (half), and the cure keeps the
# global batch by accumulation with the step's count, one scheduler step a step (half).
# ### END SOLUTION
