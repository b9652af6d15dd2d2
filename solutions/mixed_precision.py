# ---
# coursekit:
#   title: Mixed precision
#   forbidden: [torch.amp, torch.cuda.amp, torch.ao, coursekit.train, ml_dtypes]
# ---

# %% [markdown]
# # Mixed precision
#
# Five functions to write and one question to answer, 20 points, about an hour and a half. The chapter
# *Mixed precision* has what you need; three of the tasks ask for something that it does not show.
#
# Each task has a cell for your code, with `raise NotImplementedError` in it, and a cell of tests below. The
# tests say what is wrong in a sentence. Some tests are hidden; they use other numbers. Everything runs on
# the CPU in seconds.

# %% nbgrader="locked" grade_id="setup"
import math

import torch
from coursekit.notebooks import expect_close, expect_equal, points_for, probe

# %% [markdown]
# ## 1. Round into any format (3 points)
#
# A format has one sign bit, `E` bits of exponent and `F` bits of fraction, as in the chapter: the largest
# exponent is kept for infinity and NaN, the smallest for subnormal numbers. Round a number to the nearest
# one that the format has. A number half-way between two neighbours goes to the one whose fraction is even
# (its last bit is 0). What would round to something beyond the largest number becomes infinite.
#
# It must work for formats that no library has, so no cast will do it for you. (A float of Python has 53
# significant bits: multiplying by a power of two is exact.)


# %% nbgrader="solution" grade_id="round_to"
def round_to(x, E, F):
    """Return the number of the format (1, E, F) nearest to x, as a float of Python.

    x: a float of Python; infinities and NaN stay what they are.
    E: bits of the exponent, 2 to 8. F: bits of the fraction, 1 to 23.
    """
    ### BEGIN SOLUTION
    if x == 0 or not math.isfinite(x):
        return x
    bias = 2 ** (E - 1) - 1
    exponent = max(math.frexp(x)[1] - 1, 1 - bias)  # of the hidden 1; subnormals share the smallest
    gap = 2.0 ** (exponent - F)
    rounded = round(x / gap) * gap  # round() goes to even
    largest = (2 - 2.0**-F) * 2.0**bias
    return rounded if abs(rounded) <= largest else math.copysign(math.inf, x)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_round_to" points=2
def rounded(numbers, E, F):
    return [float(round_to(x, E, F)) for x in numbers]


normal = [1.0, 0.1, -3.14159, 1 + 4e-4, 1 + 6e-4, 1000.3, -65504.0, 2.0**-14]
ties = [1 + 2.0**-11, 1 + 3 * 2.0**-11, -(2 + 2.0**-10), 2049.0, 2051.0]
small = [6e-8, 2e-8, 2.0**-25, 3 * 2.0**-25, -1e-6, 5e-5, 0.0]
large = [65519.0, 65520.0, -1e6, float("inf")]


def half(numbers):
    return torch.tensor(numbers, dtype=torch.float64).half().double().tolist()


points_for(
    [
        (
            0.5,
            lambda: expect_equal(
                probe(rounded, normal, 5, 10), half(normal), hint="ordinary numbers in float16"
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                probe(rounded, ties, 5, 10), half(ties), hint="half-way between two: the even fraction"
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                probe(rounded, small, 5, 10),
                half(small),
                hint="below 2**-14 the gap no longer shrinks: it stays 2**-24 down to zero",
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                probe(rounded, large, 5, 10),
                half(large),
                hint="65,519 still rounds to the largest number, 65,504; 65,520 would round to 65,536",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_round_to_hidden" points=1
# Graded with tests that you do not see: bfloat16, an 8-bit format, and one that exists nowhere.
### BEGIN HIDDEN TESTS
def rounded(numbers, E, F):
    return [float(round_to(x, E, F)) for x in numbers]


def nearest_of_all(x, E, F):
    """Write out every finite number of the format, and the next beyond; take the nearest, ties to even."""
    bias = 2 ** (E - 1) - 1
    patterns = range(2 ** (E + F) - 2**F + 1)  # one more than the largest stands for infinity
    values = [
        (m / 2**F) * 2.0 ** (1 - bias) if e == 0 else (1 + m / 2**F) * 2.0 ** (e - bias)
        for e, m in (divmod(p, 2**F) for p in patterns)
    ]
    best = min(patterns, key=lambda p: (abs(values[p] - abs(x)), p % 2))
    return math.copysign(math.inf if best == patterns[-1] else values[best], x)


generator = torch.Generator().manual_seed(2718)
spread = torch.exp(4 * torch.randn(60, generator=generator, dtype=torch.float64)).tolist()
spread = [x * (-1) ** i for i, x in enumerate(spread)]
in_bfloat16 = torch.tensor(spread, dtype=torch.float64).float().bfloat16().double().tolist()
expect_close(probe(rounded, spread, 8, 7), in_bfloat16, rtol=0, hint="the format (8, 7), which is bfloat16")
in_e5m2 = torch.tensor(spread, dtype=torch.float64).float().to(torch.float8_e5m2).double().tolist()
expect_close(probe(rounded, spread, 5, 2), in_e5m2, rtol=0, hint="the format (5, 2), 8 bits in all")
for_3_4 = [*(x / 8 for x in range(-8, 9)), 0.0078125, 0.0234375, 15.5, 15.7, 15.75, 16.0, 0.3]
expect_equal(
    probe(rounded, for_3_4, 3, 4),
    [nearest_of_all(x, 3, 4) for x in for_3_4],
    hint="the format (3, 4): its bias is 3, its smallest number 2**-6, its largest 15.5",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Rounding at random (4 points)
#
# Weights in bfloat16 swallow small updates, because rounding to the nearest always comes back to the same
# number. Round instead up *or* down, at random, to one of the two neighbours, with probabilities such that
# the mean is the number itself: from 1.001, whose neighbours are 1 and 1.0078125, to the upper one with
# probability 0.128. Then nothing is lost in the mean.
#
# The random numbers are given, so that the result can be tested.


# %% nbgrader="solution" grade_id="stochastic_round"
def stochastic_round(x, u):
    """Return x rounded at random to bfloat16, a tensor of dtype torch.bfloat16.

    x: float32 tensor, finite, |x| below 1e38; negative numbers, zeros and bfloat16 subnormals occur.
    u: float64 tensor of the same shape, uniform in [0, 1).

    Let lower and upper be the bfloat16 neighbours of an x that is not in bfloat16, lower < x < upper, and
    p = (x - lower) / (upper - lower). The result is upper where u < p, and lower elsewhere. A number that
    bfloat16 has stays what it is.
    """
    ### BEGIN SOLUTION
    nearest = x.bfloat16()
    bits = nearest.view(torch.int16).to(torch.int32)
    difference = x.double() - nearest.double()
    # The pattern of the neighbour on the other side of x: away from zero is one more, towards zero one less.
    away = (difference > 0) == (x > 0)
    other = torch.where(away, bits + 1, bits - 1)
    # A number that rounds to zero has its neighbour in the smallest number of its own sign.
    smallest = torch.where(x > 0, 1, -(2**15) + 1)
    other = torch.where(nearest == 0, smallest, other).to(torch.int16).view(torch.bfloat16)
    other = torch.where(difference == 0, nearest, other)
    lower, upper = torch.minimum(nearest, other).double(), torch.maximum(nearest, other).double()
    gap = torch.where(upper > lower, upper - lower, 1.0)
    return torch.where(u < (x.double() - lower) / gap, upper, lower).to(torch.bfloat16)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_stochastic_round" points=2
gap = 2.0**-7  # of bfloat16 above 1
x = torch.tensor([1 + 0.25 * gap] * 4 + [-(1 + 0.25 * gap)] * 4)
u = torch.tensor([0.0, 0.2499, 0.2501, 0.9, 0.0, 0.7499, 0.7501, 0.9], dtype=torch.float64)
want = torch.tensor([1 + gap, 1 + gap, 1, 1, -1, -1, -(1 + gap), -(1 + gap)])
exact = torch.tensor([0.0, 1.5, -3.0, 2.0**-130, 256.0])


def expect_random():
    """Some of the numbers depend on u."""
    low, high = (stochastic_round(x, torch.full_like(u, value)).tolist() for value in (0.0, 0.999))
    expect_equal(
        low != high, True, hint="the results for u = 0 and for u = 0.999 are the same: does u matter?"
    )


def swallowed_or_not(steps, update):
    generator = torch.Generator().manual_seed(0)
    weights = torch.ones(20_000, dtype=torch.bfloat16)
    for _ in range(steps):
        u = torch.rand(20_000, generator=generator, dtype=torch.float64)
        weights = stochastic_round(weights.float() + update, u)
    return weights.float().mean().item()


points_for(
    [
        (
            0.5,
            lambda: (
                expect_random(),
                expect_equal(
                    str(stochastic_round(x, u).dtype), "torch.bfloat16", hint="the dtype of the result"
                ),
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                stochastic_round(x, u).float()[:4],
                want[:4],
                hint="a quarter of the gap above 1: up where u < 0.25",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                stochastic_round(x, u).float()[4:],
                want[4:],
                hint="below -1, upper is the neighbour nearer to zero, and p = 0.75",
            ),
        ),
        (
            0.25,
            lambda: (
                expect_random(),
                expect_close(
                    stochastic_round(exact, torch.zeros(5, dtype=torch.float64)).float(),
                    exact,
                    hint="numbers that bfloat16 has stay, whatever u is",
                ),
            ),
        ),
        (
            0.25,
            lambda: (
                expect_random(),
                expect_close(
                    probe(swallowed_or_not, 50, 4e-4),
                    1.02,
                    rtol=5e-4,
                    hint="20,000 weights of 1 after 50 updates of 4e-4: the mean must have moved to 1.02",
                ),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_stochastic_round_hidden" points=2
# Graded with tests that you do not see: many sizes, powers of two from below, and numbers near zero.
### BEGIN HIDDEN TESTS
every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).double()
grid = every[every.isfinite()].unique()  # all numbers of bfloat16, sorted


def by_search(x, u):
    above = torch.searchsorted(grid, x.double())  # the first that is not below x
    upper = grid[above]
    lower = torch.where(upper == x.double(), upper, grid[above - 1])
    p = torch.where(upper > lower, (x.double() - lower) / (upper - lower).clamp(min=1e-300), 0.0)
    return torch.where(u < p, upper, lower)


generator = torch.Generator().manual_seed(3141)
size = torch.exp2(torch.randint(-20, 20, (400,), generator=generator).float())
many = torch.randn(400, generator=generator) * size
u_many = torch.rand(400, generator=generator, dtype=torch.float64)
below_powers = torch.tensor([1 - 2.0**-12, -(1 - 2.0**-12), 4 - 2.0**-8, -(0.5 - 2.0**-11)]).repeat(8)
near_zero = torch.tensor([1e-41, -1e-41, 3e-41, -7e-41, 1.5e-40, -2e-39, 1.2e-38, -1.1e-38]).repeat(4)
u_few = torch.linspace(0, 0.999, 32, dtype=torch.float64)


def expect_as_search(x, u, hint):
    expect_close(stochastic_round(x, u).double() * 2.0**100, by_search(x, u) * 2.0**100, rtol=0, hint=hint)


points_for(
    [
        (0.75, lambda: expect_as_search(many, u_many, "numbers of many sizes and both signs")),
        (0.75, lambda: expect_as_search(below_powers, u_few, "just below a power of two the gap is half")),
        (0.5, lambda: expect_as_search(near_zero, u_few, "subnormal numbers, and the neighbours of zero")),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. A colleague's update (5 points)
#
# A colleague writes the second half of a training step: the backward passes are done, each micro-batch has
# left a float16 gradient that is `scale` times too large. Here is the code. It holds **five mistakes**
# (one of them spoils more than one line).


# %%
def colleagues_update(master, momentum, micro_gradients, scale, num_good, lr, beta, max_norm):
    total = torch.zeros_like(micro_gradients[0])
    for gradient in micro_gradients:
        total += gradient
    norm = total.float().norm()
    total = total * min(1.0, max_norm / (norm.item() + 1e-6))
    gradient = (total / scale).float()
    momentum = beta * momentum + gradient
    if gradient.isfinite().all():
        master = (master.half() - (lr * momentum).half()).float()
        num_good += 1
    else:
        scale = scale / 2
    if num_good == 100:
        scale, num_good = scale * 2, 0
    return master, momentum, scale, num_good


# %% [markdown]
# Write `update`, which does what the docstring says. The tests show one mistake at a time.


# %% nbgrader="solution" grade_id="update"
def update(master, momentum, micro_gradients, scale, num_good, lr, beta, max_norm):
    """Return (master, momentum, scale, num_good) after an optimizer step; change no argument.

    master, momentum: float32 tensors (d,).
    micro_gradients: list of float16 tensors (d,): of the loss times `scale`, each a share of the step's mean
        loss, so that their sum is the gradient of the step.
    scale: a power of two, a float. num_good: good steps in a row so far.

    A step is good if the summed gradient is finite in every number. Then: it is computed in float32, without
    the scale, multiplied by max_norm / norm if its norm is above max_norm; momentum = beta * momentum +
    gradient; master = master - lr * momentum. After 100 good steps in a row the scale doubles and the count
    starts again. A step that is not good changes neither master nor momentum, halves the scale, and starts
    the count again.
    """
    ### BEGIN SOLUTION
    total = sum(gradient.float() for gradient in micro_gradients) / scale
    if not total.isfinite().all():
        return master.clone(), momentum.clone(), scale / 2, 0
    norm = total.norm().item()
    if norm > max_norm:
        total = total * (max_norm / norm)
    momentum = beta * momentum + total
    num_good += 1
    if num_good == 100:
        scale, num_good = scale * 2, 0
    return master - lr * momentum, momentum, scale, num_good
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_update" points=4
def half_of(*rows):
    return [torch.tensor(row).half() for row in rows]


one = torch.tensor([1.0, 1.0])
zero = torch.zeros(2)
many_micro = half_of([2048.0, 0.0], *([[1.0, 0.0]] * 64))
overflow = half_of([float("inf"), 1.0])
points_for(
    [
        (
            0.5,
            lambda: expect_close(
                update(zero, zero, half_of([3.0, 4.0]), 2.0, 0, 0.5, 0.0, 100.0)[0],
                torch.tensor([-0.75, -1.0]),
                hint="one micro-batch, scale 2, lr 0.5, nothing to clip",
            ),
        ),
        (
            0.75,
            lambda: expect_close(
                update(zero, zero, many_micro, 1.0, 0, 1.0, 0.0, 1e9)[0],
                torch.tensor([-2112.0, 0.0]),
                hint="2,048 and 64 ones: in float16 the ones would be swallowed",
            ),
        ),
        (
            0.75,
            lambda: expect_close(
                update(zero, zero, half_of([6.0, 8.0]), 1024.0, 0, 1.0, 0.0, 1.0)[0],
                torch.tensor([-6 / 1024, -8 / 1024]),
                hint="the norm without the scale is below 0.01, so a limit of 1 changes nothing",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                update(one, zero, half_of([1.0, 1.0]), 1.0, 0, 2.0**-12, 0.0, 100.0)[0],
                one - 2.0**-12,
                rtol=1e-7,
                hint="an update of 2**-12 to a master of 1: float32 does not swallow it",
            ),
        ),
        (
            0.75,
            lambda: (
                expect_equal(
                    [t.tolist() for t in update(one, 2 * one, overflow, 8.0, 7, 0.1, 0.5, 1.0)[:2]],
                    [[1.0, 1.0], [2.0, 2.0]],
                    hint="after an overflow neither master nor momentum may have changed",
                ),
                expect_close(
                    update(one, one, half_of([4.0, 4.0]), 4.0, 7, 0.1, 0.5, 100.0)[1],
                    1.5 * one,
                    hint="no overflow: momentum 1, beta 0.5 and a gradient of 1",
                ),
            ),
        ),
        (
            0.75,
            lambda: expect_equal(
                [
                    update(one, zero, g, 8.0, n, 0.1, 0.5, 1.0)[2:]
                    for g, n in ((overflow, 7), (half_of([1.0, 1.0]), 99))
                ],
                [(4.0, 0), (16.0, 0)],
                hint="(scale, num_good) after an overflow, and after the 100th good step in a row",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_update_hidden" points=1
# Graded with tests that you do not see: forty steps in a row with overflows among them, held against float64.
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(4127)
steps = (torch.randn(40, 3, 5, generator=generator) * 500).half()
steps[11, 1, 2], steps[12, 0, 0], steps[30, 2, 4] = float("inf"), float("nan"), -float("inf")


start = (torch.linspace(-1, 1, 5), torch.zeros(5), 512.0, 95)


def by_numbers(master, momentum, micro, scale, num_good, lr, beta, max_norm):
    """Number by number, in Python's float64."""
    total = [sum(float(g[i]) for g in micro) / scale for i in range(5)]
    if not all(math.isfinite(t) for t in total):
        return master, momentum, scale / 2, 0
    norm = math.sqrt(sum(t * t for t in total))
    factor = min(1.0, max_norm / norm)
    momentum = [beta * m + t * factor for m, t in zip(momentum, total, strict=True)]
    master = [w - lr * m for w, m in zip(master, momentum, strict=True)]
    num_good += 1
    return (master, momentum, scale * 2, 0) if num_good == 100 else (master, momentum, scale, num_good)


got, want = start, (start[0].tolist(), start[1].tolist(), *start[2:])
for micro in steps:
    got = update(*got[:2], list(micro), *got[2:], 0.05, 0.9, 1.5)
    want = by_numbers(*want[:2], list(micro), *want[2:], 0.05, 0.9, 1.5)
expect_equal(
    (float(got[2]), int(got[3])), want[2:], hint="scale and count after forty steps, three of them overflows"
)
expect_close(got[0], torch.tensor(want[0]), rtol=1e-5, hint="the masters after forty steps")
expect_close(got[1], torch.tensor(want[1]), rtol=1e-5, hint="the momentum after forty steps")
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Diverges only in float16 (4 points)
#
# A run in float16 ends in NaN; the same run in bfloat16 does not. Somebody has recorded, in the order in
# which they were computed, the largest absolute value of every tensor of the last steps. You are to find
# where it began.
#
# A record is `(step, phase, tensor, max_abs)`; the phase is `"forward"`, `"backward"` (gradients of the
# scaled loss) or `"weights"` (the masters after the step). What is known:
#
# - The scaler works: it leaves a step out when it *sees* a gradient that is not finite. It sees gradients
#   of parameters only; their names begin with `grad:`.
# - An overflow in the backward pass of a step that was left out is **normal** and not what you look for.
# - Infinity spreads: of all tensors that are not finite, the first one computed is where it began.
# - Somebody may have forgotten to let the scaler see a parameter (frozen by mistake, or given to another
#   optimizer). Then an infinite gradient is *applied*, and the weights are what breaks.


# %% nbgrader="locked" grade_id="example_records"
INF, NAN = math.inf, math.nan
EXAMPLE = [  # step 0 is normal; in step 1 the activations leave float16, and NaN spreads from there
    (0, "forward", "mlp.up", 31_000.0),
    (0, "forward", "mlp.down", 900.0),
    (0, "forward", "loss", 2.1),
    (0, "backward", "mlp.down.in", 1.2),
    (0, "backward", "grad:mlp.up", 3.0),
    (0, "weights", "mlp.up", 0.7),
    (1, "forward", "mlp.up", INF),
    (1, "forward", "mlp.down", NAN),
    (1, "forward", "loss", NAN),
    (1, "backward", "mlp.down.in", NAN),
    (1, "backward", "grad:mlp.up", NAN),
    (1, "weights", "mlp.up", 0.7),
]


# %% nbgrader="solution" grade_id="first_fault"
def first_fault(records):
    """Return (step, tensor, kind) of the place where the run began to break, or None if nothing is wrong.

    records: list of (step, phase, tensor, max_abs), in the order of computation. max_abs may be infinite
        or NaN.

    kind: "activation" if a forward tensor was the first of its step that is not finite, although all masters
        were finite: no loss scale can help.
        "applied" if a step had infinite or NaN gradients in its backward pass after a finite forward pass,
        and some master is not finite at the end of that same step: the tensor is the first backward tensor
        of the step that is not finite.
        A step with such gradients after which all masters are finite was left out; it is no fault.
    """
    ### BEGIN SOLUTION
    suspect = None  # first bad backward tensor of the present step
    present = None
    for step, phase, tensor, max_abs in records:
        if step != present:
            present, suspect = step, None
        if math.isfinite(max_abs):
            continue
        if phase == "forward":
            return step, tensor, "activation"
        if phase == "backward":
            suspect = suspect or tensor
        elif suspect:
            return step, suspect, "applied"
    return None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_first_fault" points=2
skipped = [
    (5, "forward", "attn", 40.0),
    (5, "forward", "loss", 2.0),
    (5, "backward", "attn.in", INF),
    (5, "backward", "grad:attn", NAN),
    (5, "weights", "attn", 0.5),
]
later = [(step + 6, *rest) for step, *rest in EXAMPLE]
points_for(
    [
        (
            0.5,
            lambda: expect_equal(
                first_fault(EXAMPLE),
                (1, "mlp.up", "activation"),
                hint="the example: NaN in the loss is a consequence",
            ),
        ),
        (
            0.75,
            lambda: (
                expect_equal(
                    first_fault(skipped), None, hint="gradients overflowed and the step was left out: normal"
                ),
                expect_equal(
                    first_fault(skipped + later),
                    (7, "mlp.up", "activation"),
                    hint="a step that was left out, and after it the two steps of the example",
                ),
            ),
        ),
        (
            0.75,
            lambda: expect_equal(
                first_fault([*skipped[:-1], (5, "weights", "attn", NAN), *[(6, "forward", "attn", NAN)]]),
                (5, "attn.in", "applied"),
                hint="the weights broke at the end of step 5; the forward pass of step 6 only shows it",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_first_fault_hidden" points=2
# Graded with tests that you do not see: long records, several skipped steps before the fault, both kinds.
### BEGIN HIDDEN TESTS
NAMES = ["embed", "attn.0", "mlp.0", "attn.1", "mlp.1", "loss"]


def long_run(skips, fault=None):
    """Records of 12 steps; backward overflows at (step, index) of `skips`; one fault (step, index, kind)."""
    records, broken = [], False
    for step in range(12):
        kind = fault[2] if fault and fault[0] == step else None
        bad = broken
        for i, name in enumerate(NAMES):
            bad = bad or (kind == "activation" and i == fault[1])
            first = bad and not broken and kind == "activation" and i == fault[1]
            records.append((step, "forward", name, INF if first else NAN if bad else 10.0 + i))
        overflow_from = dict(skips).get(step, fault[1] if kind == "applied" else None)
        for i, name in enumerate(reversed(NAMES[:-1])):
            over = bad or (overflow_from is not None and i >= overflow_from)
            records.append((step, "backward", f"{name}.in", (NAN if bad else INF) if over else 3e4))
            records.append((step, "backward", f"grad:{name}", NAN if over else 2e4))
        broken = broken or kind == "applied"
        records += [(step, "weights", n, NAN if broken and n == "mlp.0" else 1.0) for n in NAMES[:-1]]
    return records


points_for(
    [
        (
            0.5,
            lambda: (
                expect_equal(
                    first_fault(long_run([(2, 1), (3, 0), (9, 4)])),
                    None,
                    hint="three steps left out, and no fault",
                ),
                expect_equal(
                    first_fault(long_run([(2, 1)], (9, 1, "activation"))),
                    (9, "attn.0", "activation"),
                    hint="a step left out, and much later an activation",
                ),
            ),
        ),
        (
            0.75,
            lambda: expect_equal(
                first_fault(long_run([(1, 0), (4, 2)], (7, 3, "activation"))),
                (7, "attn.1", "activation"),
                hint="two steps left out, and then an activation",
            ),
        ),
        (
            0.75,
            lambda: expect_equal(
                first_fault(long_run([(1, 0), (4, 2)], (6, 2, "applied"))),
                (6, "mlp.0.in", "applied"),
                hint="two steps left out, and then one that was not",
            ),
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. A scale that looks ahead (2 points)
#
# The usual scaler learns only from overflows, and pays for each with a step. Choose the scale from the
# largest gradients of the last steps instead: so high that the largest of them, scaled, still has a margin
# below float16's largest number, 65,504. An overflowed step tells less: its largest gradient was *at least*
# 65,504 / scale; take it for twice that.


# %% nbgrader="solution" grade_id="scale_from_history"
def scale_from_history(history, margin):
    """Return the loss scale of the next step: the largest power of two S with S * largest <= 65504 / margin.

    history: list of (scaled_max, scale) of recent steps: the largest absolute value among the *scaled*
        float16 gradients of a step (infinite or NaN if they overflowed), and the scale that the step used.
        At least one step has a largest value above 0.
    margin: 1 or more.

    `largest` is the largest gradient of the history *without* its scale; a step that overflowed counts as
    2 * 65504 / scale.
    """
    ### BEGIN SOLUTION
    sizes = [
        (scaled_max if math.isfinite(scaled_max) else 2 * 65504) / scale for scaled_max, scale in history
    ]
    return 2.0 ** math.floor(math.log2(65504 / (margin * max(sizes))))
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_scale_from_history" points=1
points_for(
    [
        (
            0.5,
            lambda: expect_equal(
                scale_from_history([(512.0, 1024.0), (100.0, 1024.0)], 1.0),
                2.0**16,
                hint="the largest gradient was 0.5: times 2**16 it is 32,768, times 2**17 too large",
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                scale_from_history([(512.0, 1024.0), (400.0, 256.0)], 4.0),
                2.0**13,
                hint="the scales differ: 400 / 256 is larger than 512 / 1024; and a margin of 4",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_scale_from_history_hidden" points=1
# Graded with tests that you do not see: overflowed steps, large gradients, a step without gradients.
### BEGIN HIDDEN TESTS
cases = [
    ([(INF, 2.0**16), (300.0, 2.0**15)], 1.0, 2.0**15),
    ([(NAN, 2.0**10), (60000.0, 2.0**12), (0.0, 2.0**12)], 8.0, 2.0**6),
    ([(65504.0, 1.0)], 1.0, 1.0),
    ([(65504.0, 1.0)], 1.5, 0.5),
    ([(6e-8, 1.0)], 2.0, 2.0**38),
]
for history, margin, want in cases:
    expect_equal(scale_from_history(history, margin), want, hint=f"history {history}, margin {margin}")
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Two bugs or one? (2 points)
#
# A team moves a float16 run with loss scaling to newer cards. They switch to bfloat16, delete the scaler, and
# to save memory they also call `model.bfloat16()` and give those parameters to AdamW. For three quarters of a
# cosine schedule the new loss lies a little above the old one; then the old curve goes on falling and the
# new one becomes flat. A colleague proposes to put the loss scaler back.
#
# Write four to eight sentences. Would the scaler help, and why? What makes the curve flat, and why only
# late? Name one number to measure that would prove it, and two different cures with what each costs.

# %% [markdown] nbgrader="answer" grade_id="two_bugs" points=2
# Your answer here.
#
# ### BEGIN SOLUTION
# **Model answer.** The scaler would not help: it is for gradients below 6e-8, and bfloat16 reaches down to
# 9e-41; besides, AdamW divides the gradient by its own size, so a factor cancels. What is lost are updates:
# bfloat16 keeps 8 significant bits, so a weight moves only if its update exceeds half a gap, between 1/512
# and 1/256 of the weight. AdamW's update is about the learning rate in size. As the cosine comes down, the
# share of weights for which this is still enough goes from most to hardly any, and the curve becomes flat; in
# the beginning only large weights are stuck. To prove it: the share of parameters that one optimizer step
# leaves bit for bit unchanged, early and late (or the same late steps from the same checkpoint with float32
# masters). Cures: float32 master weights (4 more bytes a parameter, or keep the model in float32 and use
# autocast), or stochastic rounding of the update (no bytes; noise, and random numbers in every step, and
# Gopher's authors found it not quite as good), or a compensation term as in Kahan's sum (2 bytes).
#
# **Rubric.** 0.5: no, with the reason that range is not the problem in bfloat16. 0.75: updates below half a
# gap are lost, *and* the schedule explains "late". 0.25: a measurement that separates this from other
# causes. 0.5: two cures, each with its cost (a quarter each).
# ### END SOLUTION
