# ---
# coursekit:
#   title: Optimizers and schedules
#   forbidden: [torch.optim, coursekit.train, coursekit.plan]
# ---

# %% [markdown]
# # Optimizers and schedules
#
# Five functions to write and one question to answer, 19 points, about an hour and a half. The chapter
# *Optimizers and schedules* has what you need; three of the tasks ask for something that it does not show,
# and that no library has.
#
# Each task has a cell for your code, with `raise NotImplementedError` in it, and a cell of tests below. The
# tests say what is wrong in a sentence. Some tests are hidden; they use other numbers. Everything runs on
# the CPU in seconds.

# %% nbgrader="locked" grade_id="setup"
import math

import torch
from coursekit.notebooks import expect_close, expect_equal, points_for

# %% [markdown]
# ## 1. A schedule of phases (3 points)
#
# A run is planned in phases, and phases are added while it goes on: hold a little longer, come down, rise
# again for other data. A plan is a list of phases `(kind, length, to)`. Each phase starts at the value `a`
# where the one before ended (the first at 0) and ends at `to`. With `k` the number of steps done in the
# phase, from 0, and `n` its length, its value is
#
# - `"linear"`: `a + (to - a) * k / n`
# - `"cosine"`: `to + (a - to) * (1 + cos(pi * k / n)) / 2`
# - `"exponential"`: `a * (to / a) ** (k / n)` (neither end is 0)
#
# so that the value `to` is reached at the first step *after* the phase. After the last phase the value stays.


# %% nbgrader="solution" grade_id="multiplier"
def multiplier(step, phases):
    """Return the value of the schedule at `step`, counted from 0.

    phases: list of (kind, length, to); a length may be 0: the value jumps to `to`.
    """
    ### BEGIN SOLUTION
    start = 0.0
    for kind, length, to in phases:
        if step < length:
            share = step / length
            if kind == "linear":
                return start + (to - start) * share
            if kind == "cosine":
                return to + (start - to) * (1 + math.cos(math.pi * share)) / 2
            return start * (to / start) ** share
        step, start = step - length, to
    return start
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_multiplier" points=2
WSD = [("linear", 4, 1.0), ("linear", 3, 1.0), ("cosine", 4, 0.2)]
points_for(
    [
        (
            0.5,
            lambda: expect_close(
                [multiplier(s, WSD) for s in range(8)],
                [0, 0.25, 0.5, 0.75, 1, 1, 1, 1],
                hint="rise in four steps from 0, hold for three; step 7 is the first of the cosine",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                [multiplier(s, WSD) for s in (9, 11, 50)],
                [0.6, 0.2, 0.2],
                hint="half-way down the cosine from 1 to 0.2; at its end; long after",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                [
                    multiplier(s, [*WSD, ("linear", 2, 0.8), ("exponential", 2, 0.2)])
                    for s in (11, 12, 13, 14, 15)
                ],
                [0.2, 0.5, 0.8, 0.4, 0.2],
                hint="two phases more: each starts where the one before ended",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                [multiplier(s, [("linear", 0, 1.0), ("linear", 2, 0.5)]) for s in (0, 1, 2)],
                [1.0, 0.75, 0.5],
                hint="a phase of length 0 is a jump: no warm-up",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_multiplier_hidden" points=1
# Graded with tests that you do not see: other phases, and a plan that was prolonged.
### BEGIN HIDDEN TESTS
long_plan = [("cosine", 8, 1.0), ("exponential", 6, 0.125), ("linear", 0, 0.5), ("cosine", 10, 0.0)]
expect_close(
    [multiplier(s, long_plan) for s in (2, 4, 8, 10, 12, 14, 19, 24, 99)],
    [(1 - math.cos(math.pi / 4)) / 2, 0.5, 1.0, 0.5, 0.25, 0.5, 0.25, 0.0, 0.0],
    hint="a rise along a cosine, a fall by halves, a jump, a cosine to 0",
)
prolonged = [("linear", 10, 1.0), ("linear", 1000, 1.0)]
expect_close(
    [multiplier(500, prolonged), multiplier(500, [*prolonged, ("linear", 7, 0.0)])],
    [1.0, 1.0],
    hint="what is added at the end changes nothing before it",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A rule of your own (3 points)
#
# Lion's sign gives every coordinate the same length; LAMB gives every layer a length that follows its norm.
# No library has both at once. Write it, from this description:
#
# - the direction is Lion's: the sign of `b1 * m + (1 - b1) * g`;
# - it is stretched to the norm of `theta`, as LAMB does; where `theta` or the direction is all zeros, it is
#   not stretched;
# - the weights are decayed beside it, by the share `lr * decay`, and the decay is *not* stretched;
# - the momentum is kept as Lion keeps it, with `b2`.


# %% nbgrader="solution" grade_id="lion_lamb"
def lion_lamb(theta, g, m, lr, b1, b2, decay):
    """Return (theta, m) after a step; change no argument. theta, g, m: tensors of one shape."""
    ### BEGIN SOLUTION
    direction = (b1 * m + (1 - b1) * g).sign()
    length, norm = direction.norm(), theta.norm()
    if length > 0 and norm > 0:
        direction = direction * (norm / length)
    return theta - lr * direction - lr * decay * theta, b2 * m + (1 - b2) * g
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_lion_lamb" points=2
theta = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
g = torch.tensor([[1.0, -2.0], [0.5, 9.0]], dtype=torch.float64)
zeros = torch.zeros(2, 2, dtype=torch.float64)
points_for(
    [
        (
            0.75,
            lambda: expect_close(
                lion_lamb(theta, g, zeros, 0.1, 0.9, 0.99, 0.0)[0],
                torch.tensor([[2.75, 0.25], [-0.25, 3.75]]).double(),
                hint="theta has norm 5, four signs have norm 2: each coordinate moves by 0.1 * 2.5",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                lion_lamb(zeros, g, zeros, 0.1, 0.9, 0.99, 0.5)[0],
                torch.tensor([[-0.1, 0.1], [-0.1, -0.1]]).double(),
                hint="a parameter that is zero must be able to leave zero",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                lion_lamb(theta, zeros, zeros, 0.1, 0.9, 0.99, 0.5)[0],
                0.95 * theta,
                hint="no gradient and no momentum: the decay alone, by 0.1 * 0.5",
            ),
        ),
        (
            0.25,
            lambda: expect_close(
                lion_lamb(theta, g, 2 * g, 0.1, 0.9, 0.99, 0.0)[1],
                1.99 * g,
                hint="the momentum that is kept: 0.99 * 2 g + 0.01 * g",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_lion_lamb_hidden" points=1
# Graded with tests that you do not see: ten steps with everything at once, number by number.
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(7261)
gradients = torch.randn(10, 3, 2, generator=generator, dtype=torch.float64)
gradients[4] = 0.0
first = torch.randn(3, 2, generator=generator, dtype=torch.float64)


def by_numbers(theta, g, m, lr, b1, b2, decay):
    """Coordinate by coordinate, in plain floats."""
    sign = [
        math.copysign(1, x) if x else 0.0
        for x in (b1 * mi + (1 - b1) * gi for mi, gi in zip(m, g, strict=True))
    ]
    norms = [math.sqrt(sum(x * x for x in values)) for values in (theta, sign)]
    ratio = norms[0] / norms[1] if all(norms) else 1.0
    new = [t - lr * ratio * s - lr * decay * t for t, s in zip(theta, sign, strict=True)]
    return new, [b2 * mi + (1 - b2) * gi for mi, gi in zip(m, g, strict=True)]


got = first.clone(), torch.zeros(3, 2, dtype=torch.float64)
want = first.flatten().tolist(), [0.0] * 6
for gradient in gradients:
    got = lion_lamb(*(got[0], gradient, got[1]), 0.03, 0.9, 0.98, 0.2)
    want = by_numbers(*(want[0], gradient.flatten().tolist(), want[1]), 0.03, 0.9, 0.98, 0.2)
expect_close(got[0].flatten(), want[0], rtol=1e-10, hint="theta after ten steps with momentum and decay")
expect_close(got[1].flatten(), want[1], rtol=1e-10, hint="the momentum after ten steps")
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Which optimizer was it? (5 points)
#
# A colleague has left a record of a run and no word about how it was made: the parameters before the first
# and after every step, and the gradients. You know that it was one of six rules, from a fresh state, without
# weight decay, at a constant learning rate that may be anything:
#
# `"sgd"`, `"momentum"` (0.9, as in the chapter), `"adagrad"` (eps 1e-10), `"rmsprop"` (alpha 0.99, eps 1e-8),
# `"adam"` (betas 0.9 and 0.999, eps 1e-8), `"lion"` (betas 0.9 and 0.99).
#
# Find the rule and the rate. The record was written in float32, so it holds with six digits only.


# %% nbgrader="solution" grade_id="detect"
def detect(thetas, gradients):
    """Return (name, lr): the rule that made this record, and its learning rate, a float.

    thetas: float64 tensor (steps + 1, d). gradients: float64 tensor (steps, d). At least 4 steps.
    """
    ### BEGIN SOLUTION
    zero = torch.zeros_like(gradients[0])
    names = ["sgd", "momentum", "adagrad", "rmsprop", "adam", "lion"]
    directions = {name: [] for name in names}
    b, G, v, m, a, k = (zero.clone() for _ in range(6))
    for t, g in enumerate(gradients, start=1):
        b, G, v = 0.9 * b + g, G + g**2, 0.99 * v + 0.01 * g**2
        m, a = 0.9 * m + 0.1 * g, 0.999 * a + 0.001 * g**2
        m_hat, a_hat = m / (1 - 0.9**t), a / (1 - 0.999**t)
        directions["sgd"].append(g)
        directions["momentum"].append(b)
        directions["adagrad"].append(g / (G.sqrt() + 1e-10))
        directions["rmsprop"].append(g / (v.sqrt() + 1e-8))
        directions["adam"].append(m_hat / (a_hat.sqrt() + 1e-8))
        directions["lion"].append((0.9 * k + 0.1 * g).sign())
        k = 0.99 * k + 0.01 * g
    moved, best = thetas[:-1] - thetas[1:], None
    for name in names:
        u = torch.stack(directions[name])
        lr = ((u * moved).sum() / (u * u).sum()).item()  # least squares
        error = (moved - lr * u).norm().item()
        if best is None or error < best[0]:
            best = error, name, lr
    return best[1], best[2]
    ### END SOLUTION


# %% nbgrader="locked" grade_id="make_record"
def make_record(direction, start, gradients, lr):
    """Return the parameters of a run whose step t is theta - lr * direction(t), rounded to float32."""
    thetas = [start]
    for t in range(len(gradients)):
        thetas.append(thetas[-1] - lr * direction(t))
    return torch.stack(thetas).float().double()


# %% nbgrader="tests" grade_id="test_detect" points=3
generator = torch.Generator().manual_seed(911)
gradients = torch.randn(12, 8, generator=generator, dtype=torch.float64)
start = torch.zeros(8, dtype=torch.float64)


def moving(shares, t, values):
    """The moving mean of values[0..t] from zero, as a sum that is written out."""
    return sum((1 - shares) * shares ** (t - i) * values[i] for i in range(t + 1))


def sgd_at(t):
    return gradients[t]


def momentum_at(t):
    return sum(0.9 ** (t - i) * gradients[i] for i in range(t + 1))


def adagrad_at(t):
    return gradients[t] / ((gradients[: t + 1] ** 2).sum(0).sqrt() + 1e-10)


def rmsprop_at(t):
    return gradients[t] / (moving(0.99, t, gradients**2).sqrt() + 1e-8)


def adam_at(t):
    m, v = moving(0.9, t, gradients), moving(0.999, t, gradients**2)
    return m / (1 - 0.9 ** (t + 1)) / ((v / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)


def lion_at(t):
    before = moving(0.99, t - 1, gradients) if t else torch.zeros(8, dtype=torch.float64)
    return (0.9 * before + 0.1 * gradients[t]).sign()


def expect_found(name, direction, lr, hint):
    got_name, got_lr = detect(make_record(direction, start, gradients, lr), gradients)
    expect_equal(got_name, name, hint=hint)
    expect_close(got_lr, lr, rtol=1e-3, hint=f"the rule is {name}; its learning rate")


points_for(
    [
        (0.5, lambda: expect_found("sgd", sgd_at, 0.02, "every step along its own gradient")),
        (
            0.5,
            lambda: expect_found("momentum", momentum_at, 0.01, "the first step is sgd's, the second is not"),
        ),
        (
            0.5,
            lambda: expect_found("adagrad", adagrad_at, 0.3, "the first step has equal lengths; they shrink"),
        ),
        (
            0.5,
            lambda: expect_found(
                "rmsprop", rmsprop_at, 0.004, "the first step is 10 lr long in every coordinate"
            ),
        ),
        (0.5, lambda: expect_found("adam", adam_at, 0.05, "the first step is lr long in every coordinate")),
        (
            0.5,
            lambda: expect_found(
                "lion", lion_at, 0.001, "every step has the same length in every coordinate"
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_detect_hidden" points=2
# Graded with tests that you do not see: gradients of very different sizes, and records of four steps.
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(5077)
size = torch.logspace(-4, 4, 8, dtype=torch.float64)


def moving(shares, t, values):
    return sum((1 - shares) * shares ** (t - i) * values[i] for i in range(t + 1))


def direction_of(name, gradients):
    def at(t):
        m, v, zero = moving(0.9, t, gradients), moving(0.999, t, gradients**2), 0 * gradients[0]
        before = moving(0.99, t - 1, gradients) if t else zero
        return {
            "sgd": gradients[t],
            "momentum": sum(0.9 ** (t - i) * gradients[i] for i in range(t + 1)),
            "adagrad": gradients[t] / ((gradients[: t + 1] ** 2).sum(0).sqrt() + 1e-10),
            "rmsprop": gradients[t] / (moving(0.99, t, gradients**2).sqrt() + 1e-8),
            "adam": m / (1 - 0.9 ** (t + 1)) / ((v / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8),
            "lion": (0.9 * before + 0.1 * gradients[t]).sign(),
        }[name]

    return at


def expect_found(name, steps, lr, scale, hint):
    gradients = torch.randn(steps, 8, generator=generator, dtype=torch.float64) * scale
    start = torch.zeros(8, dtype=torch.float64)
    record = make_record(direction_of(name, gradients), start, gradients, lr)
    got_name, got_lr = detect(record, gradients)
    expect_equal(got_name, name, hint=hint)
    expect_close(got_lr, lr, rtol=1e-3, hint=f"the rule is {name}; its learning rate")


points_for(
    [
        (0.25, lambda: expect_found("adagrad", 4, 0.1, 1.0, "four steps")),
        (0.25, lambda: expect_found("adam", 4, 0.1, 1.0, "four steps")),
        (0.25, lambda: expect_found("rmsprop", 4, 2.0, 1.0, "four steps and a high rate")),
        (0.25, lambda: expect_found("lion", 4, 3e-4, 1000.0, "four steps, large gradients")),
        (0.5, lambda: expect_found("adam", 30, 1e-3, size, "thirty steps, coordinates of different sizes")),
        (
            0.5,
            lambda: expect_found("momentum", 30, 1e-5, size, "thirty steps, coordinates of different sizes"),
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A colleague's loop (4 points)
#
# A colleague trains with AdamW and gradient accumulation: a matrix that is decayed, and the gain of a norm
# that is not. Here is the code. It holds **four mistakes**.


# %%
def colleagues_train(matrix, gain, micro_gradients, grad_accum_steps, lrs, decay):
    theta = [matrix.clone(), gain.clone()]
    m, v = [0, 0], [0, 0]
    total = [0, 0]
    for i, gradients in enumerate(micro_gradients):
        total = [total[j] + gradients[j] for j in range(2)]
        lr = lrs[min(i, len(lrs) - 1)]
        if (i + 1) % grad_accum_steps == 0:
            for j in range(2):
                g = total[j] + decay * theta[j]
                m[j] = 0.9 * m[j] + 0.1 * g
                v[j] = 0.999 * v[j] + 0.001 * g**2
                m_hat, v_hat = m[j] / (1 - 0.9 ** (i + 1)), v[j] / (1 - 0.999 ** (i + 1))
                theta[j] = theta[j] - lr * m_hat / (v_hat.sqrt() + 1e-8)
            total = [0, 0]
    return theta[0], theta[1]


# %% nbgrader="solution" grade_id="train"
def train(matrix, gain, micro_gradients, grad_accum_steps, lrs, decay):
    """Return (matrix, gain) after training with AdamW (betas 0.9 and 0.999, eps 1e-8); change no argument.

    micro_gradients: list of (gradient of matrix, gradient of gain), one pair a micro-step; the sum of
        grad_accum_steps of them is the gradient of an optimizer step. Their number divides.
    lrs: learning rate of each *optimizer step*, a list.
    decay: of the matrix, decoupled: beside Adam's division. The gain is not decayed.
    """
    ### BEGIN SOLUTION
    theta, m, v = [matrix.clone(), gain.clone()], [0, 0], [0, 0]
    starts = range(0, len(micro_gradients), grad_accum_steps)
    for t, start in enumerate(starts, start=1):
        group, lr = micro_gradients[start : start + grad_accum_steps], lrs[t - 1]
        for j in range(2):
            g = sum(pair[j] for pair in group)
            m[j] = 0.9 * m[j] + 0.1 * g
            v[j] = 0.999 * v[j] + 0.001 * g**2
            step = m[j] / (1 - 0.9**t) / ((v[j] / (1 - 0.999**t)).sqrt() + 1e-8)
            shrunk = theta[j] * (1 - lr * decay) if j == 0 else theta[j]
            theta[j] = shrunk - lr * step
    return theta[0], theta[1]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_train" points=3
one = torch.ones(2, 2, dtype=torch.float64)
nothing = [(0 * one, torch.zeros(2, dtype=torch.float64))]
pull = [(one, torch.ones(2, dtype=torch.float64))]
gain = torch.ones(2, dtype=torch.float64)
points_for(
    [
        (
            0.75,
            lambda: expect_close(
                train(one, gain, nothing * 2, 1, [0.1, 0.1], 0.5)[0],
                0.95**2 * one,
                hint="a matrix without gradients, two steps: each shrinks it by 0.1 * 0.5, and nothing else",
            ),
        ),
        (
            0.75,
            lambda: (
                expect_close(
                    train(one, gain, nothing * 2, 1, [0.1, 0.1], 0.5)[1],
                    gain,
                    hint="a gain without gradients stays 1",
                ),
                expect_close(
                    train(one, gain, pull, 1, [0.1], 0.5)[1], gain - 0.1, hint="a gain with a gradient moves"
                ),
            ),
        ),
        (
            0.75,
            lambda: expect_close(
                train(one, gain, pull * 4, 2, [0.2, 0.1], 0.0)[1],
                gain - 0.3,
                hint="two steps of two micro-steps, rates 0.2 and 0.1, equal gradients: 1 - 0.2 - 0.1",
            ),
        ),
        (
            0.75,
            lambda: expect_close(
                train(one, gain, pull * 3, 3, [0.1] * 3, 0.0)[0],
                0.9 * one,
                hint="one optimizer step of three micro-steps: its length is the rate; which t is it?",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_train_hidden" points=1
# Graded with tests that you do not see: twelve micro-steps with everything at once, number by number.
### BEGIN HIDDEN TESTS
def coordinate(x, gradients, lrs, decay):
    """One coordinate in plain floats; gradients of the optimizer steps."""
    m = v = 0.0
    for t, (g, lr) in enumerate(zip(gradients, lrs, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - lr * decay * x - lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


generator = torch.Generator().manual_seed(6007)
draw = [torch.randn(12, n, generator=generator, dtype=torch.float64) for n in (6, 3)]
matrix, gain = torch.linspace(-1, 2, 6).double().reshape(2, 3), torch.linspace(0.5, 1.5, 3).double()
micro = [(draw[0][i].reshape(2, 3), draw[1][i]) for i in range(12)]
lrs = [0.01, 0.05, 0.03, 0.02]
got = train(matrix, gain, micro, 3, lrs, 0.4)
for which, start, decay in ((0, matrix, 0.4), (1, gain, 0.0)):
    sums = draw[which].reshape(4, 3, -1).sum(1)
    want = [coordinate(x, sums[:, i].tolist(), lrs, decay) for i, x in enumerate(start.flatten().tolist())]
    expect_close(
        got[which].flatten(),
        want,
        rtol=1e-9,
        hint=f"{('the matrix', 'the gain')[which]} after four optimizer steps",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 5. What fits? (2 points)
#
# Everything is float32: 4 bytes of weight and 4 bytes of gradient a parameter, and 4 bytes for each number of
# state. Muon keeps one number for a parameter of a hidden matrix, and its companion AdamW two for every other
# parameter. ZeRO stage 1 divides the state, and nothing else, by the number of ranks.


# %% nbgrader="solution" grade_id="what_fits"
def what_fits(num_params, num_hidden, dp_size, memory_bytes):
    """Return {name: the least ZeRO stage, 0 or 1, that fits} for "sgd", "momentum", "lion", "adamw", "muon".

    num_params: all parameters, of which num_hidden are in hidden matrices.
    memory_bytes: of each of the dp_size ranks; using all of it is allowed. None if it does not fit at all.
    """
    ### BEGIN SOLUTION
    others = num_params - num_hidden
    numbers = {
        "sgd": 0,
        "momentum": num_params,
        "lion": num_params,
        "adamw": 2 * num_params,
        "muon": num_hidden + 2 * others,
    }
    result = {}
    for name, count in numbers.items():
        room = memory_bytes - 8 * num_params
        result[name] = 0 if 4 * count <= room else 1 if 4 * count / dp_size <= room else None
    return result
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_what_fits" points=1
points_for(
    [
        (
            0.5,
            lambda: expect_equal(
                what_fits(1000, 600, 4, 13_600),
                {"sgd": 0, "momentum": 0, "lion": 0, "adamw": 1, "muon": 0},
                hint="8,000 bytes of weights and gradients leave 5,600; muon keeps 600 + 2 * 400 numbers",
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                what_fits(1000, 600, 4, 9_500),
                {"sgd": 0, "momentum": 1, "lion": 1, "adamw": None, "muon": 1},
                hint="1,500 bytes are left; a quarter of adamw's state is 2,000",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_what_fits_hidden" points=1
# Graded with tests that you do not see: other sizes, one rank, no room at all.
### BEGIN HIDDEN TESTS
expect_equal(
    what_fits(10**9, 10**9, 1, 12 * 10**9),
    {"sgd": 0, "momentum": 0, "lion": 0, "adamw": None, "muon": 0},
    hint="all parameters are hidden; with one rank stage 1 saves nothing",
)
expect_equal(
    what_fits(500, 0, 8, 4500),
    {"sgd": 0, "momentum": 1, "lion": 1, "adamw": 1, "muon": 1},
    hint="no hidden matrix: muon keeps what adamw keeps",
)
expect_equal(
    list(what_fits(500, 100, 8, 3999).values()), [None] * 5, hint="not even weights and gradients fit"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. The better optimizer (2 points)
#
# A blog post trains a model of 124 million parameters with a new optimizer, at its best learning rate of
# twelve that were tried, and with AdamW at the rate of a published recipe for another batch size. Both use a
# cosine over the same number of steps. After 20% of the run the new one is ahead by 0.08 nats; there the post
# stops both runs to save money and concludes "1.5 times faster than AdamW".
#
# Write four to eight sentences. Name three things that make the conclusion unsafe, and for each the
# experiment that would settle it at the least cost.

# %% [markdown] nbgrader="answer" grade_id="better" points=2
# Your answer here.
#
# ### BEGIN SOLUTION
# **Model answer.** First, the budgets of tuning differ, twelve tries against none: give AdamW the same
# twelve rates (or both three) on a shorter run, and choose the best of each. Second, 20% of a cosine is a
# point where the rate is still near its peak, and a rule that is better at a high rate may lose its lead
# when the rate comes down; compare complete schedules, each with its own length (a shorter run with a whole
# cosine costs the same as 20% of a long one). Third, one seed: 0.08 may be what two seeds of AdamW differ
# by, so measure that spread with two or three seeds of the short run. Also good: "faster" is a claim about
# steps, while a step may cost more time and bytes; it must be read off where both reach the *same* loss, in
# seconds; other hyperparameters (betas, decay, warm-up) were set for one of them; held-out loss and not
# training loss.
#
# **Rubric.** Half a point for each of three different reasons, together with an experiment that would settle
# it (a quarter without one). Half a point if one of the three is about the schedule that was cut off.
# ### END SOLUTION
