# ---
# coursekit:
#   title: Training is optimization
#   forbidden: [torch, tensorflow, keras, jax, autograd, scipy, sklearn, coursekit.train]
# ---

# %% [markdown]
# # Training is optimization
#
# You write five small pieces that stand under every training run: a loss with its gradient, a gradient
# check, a backward pass through a table that is used twice, the largest stable learning rate of a model
# that you may only probe, and a training loop without four famous bugs. One question at the end is read by
# a person. 20 points, about an hour.
#
# Everything is NumPy in float64. Libraries that differentiate for you are off limits here (`torch`,
# `tensorflow`, `jax`, ...): the tests use them to check you. Where the page writes a loss in nats, so does
# this notebook.

# %% nbgrader="locked" grade_id="setup"
import numpy as np

from coursekit.notebooks import expect_close, expect_equal, points_for, probe


def random_case(seed, *shape):
    """Normal random numbers that are the same for everybody."""
    return np.random.default_rng(seed).standard_normal(shape)


# %% [markdown]
# ## 1. A loss that is not quite cross-entropy (3 points)
#
# With **label smoothing** $\alpha$ the deserved probability of the true class is not 1. Of it, $\alpha$ is
# taken away and spread evenly over all $K$ classes, the true one included: $t_k = (1-\alpha)\,[k = y] +
# \alpha/K$. The loss of one sample is $-\sum_k t_k \ln p_k$ with $p = \mathrm{softmax}(z)$, and of a batch
# its mean.
#
# Return the loss *and* its gradient with respect to the logits. Logits may be as large as 1000, in either
# direction.


# %% nbgrader="solution" grade_id="smoothed_cross_entropy"
def smoothed_cross_entropy(logits, labels, smoothing):
    """Return (loss, gradient): the mean loss in nats, and its gradient, of the shape of `logits`.

    logits: float array (n, classes).  labels: int array (n,).  smoothing: α, from 0 to 1.
    """
    ### BEGIN SOLUTION
    n, num_classes = logits.shape
    targets = np.full(logits.shape, smoothing / num_classes)
    targets[np.arange(n), labels] += 1 - smoothing
    # The largest logit is taken out first: exp(1000) overflows.
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    # Each row of targets sums to 1, so the chain rule leaves "given minus deserved".
    return float(-(targets * log_p).sum() / n), (np.exp(log_p) - targets) / n
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_loss" points=2
import torch

logits_1, labels_1 = 3 * random_case(0, 6, 4), np.array([0, 3, 3, 1, 2, 0])
leaf_1 = torch.tensor(logits_1, requires_grad=True)
want_1 = torch.nn.functional.cross_entropy(leaf_1, torch.tensor(labels_1), label_smoothing=0.1)
want_1.backward()
got_1 = smoothed_cross_entropy(logits_1, labels_1, 0.1)
# Logits 1000 and 0: the likelier class has p = 1 to the last digit, and ln p of the other is -1000.
got_huge_1 = smoothed_cross_entropy(np.array([[1000.0, 0.0]]), np.array([0]), 0.2)


def check_huge():
    expect_close(got_huge_1[0], 100.0, hint="logits 1000 and 0: ln p is 0 and -1000, t is 0.9 and 0.1")
    expect_close(got_huge_1[1], np.array([[0.1, -0.1]]), hint="logits 1000 and 0: p is 1 and 0")


points_for(
    [
        (0.5, lambda: expect_close(got_1[0], want_1.item(), hint="the mean over samples of -sum(t * ln p)")),
        (
            0.5,
            lambda: expect_close(
                got_1[1],
                leaf_1.grad.numpy(),
                hint="each entry is (p - t) / n, and what is deserved, t, is not a one",
            ),
        ),
        (1, check_huge),
    ]
)

# %% nbgrader="tests" grade_id="test_loss_hidden" points=1
# Graded with tests that you do not see: other sizes, other smoothing, logits of +-1000.
### BEGIN HIDDEN TESTS
import torch

logits_2, labels_2 = 1000 * np.sign(random_case(1, 5, 7)) + random_case(2, 5, 7), np.array([6, 0, 2, 2, 5])
leaf_2 = torch.tensor(logits_2, requires_grad=True)
want_2 = torch.nn.functional.cross_entropy(leaf_2, torch.tensor(labels_2), label_smoothing=0.25)
want_2.backward()
got_2 = smoothed_cross_entropy(logits_2, labels_2, 0.25)
expect_close(got_2[0], want_2.item(), hint="take the largest logit of a row out before exp")
expect_close(got_2[1], leaf_2.grad.numpy(), hint="compute ln p first and p = exp(ln p) from it")
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A gradient check that can't be fooled (3 points)
#
# First the slopes: **central** differences, one weight at a time. `loss` is a function of one array of any
# shape. Afterwards the array must be as it was.
#
# Then the verdict. `gradient_is_right` compares a claimed gradient with a numeric one and returns `True` or
# `False`. Decide by the size of the difference *relative to the size of the gradients themselves*
# (Euclidean norms of the whole arrays, the larger of the two); up to $10^{-6}$ is right. Two gradients that
# are both exactly zero agree. Arrays of different shapes never do, and neither does anything with a NaN in
# it.


# %% nbgrader="solution" grade_id="gradient_check"
def numeric_gradient(loss, weights, epsilon):
    """Return the slope of `loss` in each entry of `weights`, by central differences; same shape.

    loss: function of an array like `weights`, returns a float.  weights: float array of any shape.
    """
    ### BEGIN SOLUTION
    slopes = np.empty_like(weights)
    for index in np.ndindex(weights.shape):
        ends = []
        for sign in (1, -1):
            shifted = weights.copy()
            shifted[index] += sign * epsilon
            ends.append(loss(shifted))
        slopes[index] = (ends[0] - ends[1]) / (2 * epsilon)
    return slopes
    ### END SOLUTION


def gradient_is_right(claimed, numeric):
    """Return True if the claimed gradient is right, else False."""
    ### BEGIN SOLUTION
    if claimed.shape != numeric.shape:
        return False
    size = max(np.linalg.norm(claimed), np.linalg.norm(numeric))
    # "<=" is False for NaN, and True when both are exactly zero.
    return bool(np.linalg.norm(claimed - numeric) <= 1e-6 * size)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_numeric_gradient" points=1
def slopes_of_a_cubic(weights, epsilon):
    def cubic(w):
        return float((w**3).sum() + w[0, 0] * w[1, 1])

    slopes = numeric_gradient(cubic, weights, epsilon)
    return slopes, weights


weights_3 = random_case(3, 2, 3)
slopes_3, after_3 = probe(slopes_of_a_cubic, weights_3, 1e-2)
expect_close(after_3, weights_3, hint="put every weight back, or work on a copy")
# (w + e)^3 - (w - e)^3 = 6 w^2 e + 2 e^3, so for a cubic the central difference is off by exactly e^2.
exact_3 = 3 * weights_3**2 + 1e-2**2
exact_3[0, 0] += weights_3[1, 1]
exact_3[1, 1] += weights_3[0, 0]
expect_close(
    slopes_3, exact_3, hint="central: (loss(w + e) - loss(w - e)) / (2 e), the other weights unchanged"
)

# %% nbgrader="tests" grade_id="test_gradient_is_right" points=1
truth_4 = 1e-11 * random_case(4, 3, 4)
# str: NumPy's True and Python's True are the same verdict.
expect_equal(
    str(gradient_is_right(truth_4 * (1 + 1e-9), truth_4)), "True", hint="a relative error of 1e-9 is rounding"
)
expect_equal(
    str(gradient_is_right(np.zeros((3, 4)), truth_4)),
    "False",
    hint="zero is not right merely because the true gradient is small: the measure is relative",
)
expect_equal(
    str(gradient_is_right(np.array([1.0, 2.0, 1e-9]), np.array([1.0, 2.0, 0.0]))),
    "True",
    hint="compare norms of whole arrays: entry by entry, an exact zero can never be met",
)

# %% nbgrader="tests" grade_id="test_gradient_is_right_hidden" points=1
# Graded with tests that you do not see: both zero, a wrong sign, one wrong entry among many, shapes, NaN.
### BEGIN HIDDEN TESTS
zeros_5, truth_5 = np.zeros(5), random_case(5, 500)
one_wrong_5, with_nan_5 = truth_5.copy(), truth_5.copy()
one_wrong_5[17] += 0.01
with_nan_5[3] = np.nan
verdicts_5 = [
    str(gradient_is_right(*pair))
    for pair in [
        (zeros_5, zeros_5),
        (-truth_5, truth_5),
        (one_wrong_5, truth_5),
        (np.ones((3, 1)), np.ones(3)),
        (with_nan_5, truth_5),
        (truth_5 + 1e-8, truth_5),
        (1e6 * truth_5, 1e6 * truth_5 * (1 + 1e-4)),
    ]
]
expect_equal(
    verdicts_5,
    ["True", "False", "False", "False", "False", "True", "False"],
    hint="in order: both zero, wrong sign, one wrong entry, shapes, NaN, rounding, off by 1e-4",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. One table at both ends (4 points)
#
# Language models often use one table of vectors twice: to read tokens and to score the next one (**tied
# embeddings**). Here is the smallest such model. A context of $k$ token ids is summed and squashed, $h =
# \tanh\bigl(\sum_j E_{c_j}\bigr)$, and the score of token $v$ is $z_v = h \cdot E_v$. The loss is the mean
# cross-entropy of the next tokens.
#
# Derive the gradient of the loss with respect to $E$ and write it. An id may occur several times in one
# context, in several contexts, and among the labels. Your own `numeric_gradient` and `tied_loss` are there
# to check you before the tests do.


# %% nbgrader="locked" grade_id="tied_model"
def tied_loss(table, contexts, next_ids):
    """Mean loss in nats; table (vocab_size, d), contexts int (n, k), next_ids int (n,)."""
    logits = np.tanh(table[contexts].sum(axis=1)) @ table.T
    scores = logits[np.arange(len(next_ids)), next_ids]
    return float((np.logaddexp.reduce(logits, axis=1) - scores).mean())


# %% nbgrader="solution" grade_id="tied_gradient"
def tied_gradient(table, contexts, next_ids):
    """Return the gradient of `tied_loss` with respect to `table`, shape (vocab_size, d)."""
    ### BEGIN SOLUTION
    hidden = np.tanh(table[contexts].sum(axis=1))  # (n, d)
    _, d_logits = smoothed_cross_entropy(hidden @ table.T, next_ids, 0.0)
    gradient = d_logits.T @ hidden  # the table as scorer
    d_sum = (d_logits @ table) * (1 - hidden**2)  # (n, d)
    for position in range(contexts.shape[1]):
        # add.at counts an id as often as it occurs; gradient[ids] += d_sum would count it once.
        np.add.at(gradient, contexts[:, position], d_sum)
    return gradient
    ### END SOLUTION


# %%
# Yours to try things, for example:
# table, contexts, next_ids = random_case(6, 7, 3), np.array([[0, 1], [2, 3]]), np.array([4, 5])
# numeric = numeric_gradient(lambda t: tied_loss(t, contexts, next_ids), table, 1e-4)
# gradient_is_right(tied_gradient(table, contexts, next_ids), numeric)

# %% nbgrader="tests" grade_id="test_tied" points=3
import torch


def tied_paths(table, contexts, next_ids):
    """The gradient through the reading end and through the scoring end, by autograd."""
    read, score = (torch.tensor(table, requires_grad=True) for _ in range(2))
    logits = torch.tanh(read[torch.tensor(contexts)].sum(1)) @ score.T
    torch.nn.functional.cross_entropy(logits, torch.tensor(next_ids)).backward()
    return read.grad.numpy(), score.grad.numpy()


def check_tied(table, contexts, next_ids):
    got, (read, score) = tied_gradient(table, contexts, next_ids), tied_paths(table, contexts, next_ids)
    hint = "check the chain rule: loss, logits, hidden, sum, table"
    for wrong, why in (
        (score, "you have the scoring end only; the table also acts through the contexts"),
        (read, "you have the reading end only; the table also scores the next token"),
    ):
        if np.shape(got) == wrong.shape and np.allclose(got, wrong, rtol=1e-6, atol=1e-12):
            hint = why
    once = np.bincount(contexts.ravel(), minlength=len(table)) <= 1
    want = read + score
    if np.shape(got) == want.shape and not once.all() and np.allclose(got[once], want[once], rtol=1e-9):
        hint = "ids that occur once are right; an id that occurs m times collects m contributions"
    expect_close(got, want, rtol=1e-9, hint=hint)


table_7 = random_case(7, 8, 3)
points_for(
    [
        (1, lambda: check_tied(table_7, np.array([[0, 1], [2, 3]]), np.array([4, 5]))),
        (1, lambda: check_tied(table_7, np.array([[0, 1], [2, 0], [2, 1]]), np.array([0, 5, 5]))),
        (1, lambda: check_tied(table_7, np.array([[3, 3, 3], [1, 3, 7]]), np.array([3, 0]))),
    ]
)

# %% nbgrader="tests" grade_id="test_tied_hidden" points=1
# Graded with tests that you do not see: larger tables, more contexts, unused ids.
### BEGIN HIDDEN TESTS
import torch


def tied_oracle(table, contexts, next_ids):
    leaf = torch.tensor(table, requires_grad=True)
    logits = torch.tanh(leaf[torch.tensor(contexts)].sum(1)) @ leaf.T
    torch.nn.functional.cross_entropy(logits, torch.tensor(next_ids)).backward()
    return leaf.grad.numpy()


table_8 = 0.5 * random_case(8, 11, 4)
rng_8 = np.random.default_rng(8)
for high_8 in (5, 11):
    many_8 = rng_8.integers(0, high_8, (40, 3)), rng_8.integers(0, 11, 40)
    expect_close(
        tied_gradient(table_8, *many_8),
        tied_oracle(table_8, *many_8),
        rtol=1e-9,
        hint="repeats within a context and across contexts add up",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The largest stable learning rate, from outside (3 points)
#
# A model is handed to you as a black box: a function that gives the gradient at any weights. There are too
# many weights for a Hessian matrix, but not for its products: for a small $\epsilon$
#
# $$ Hv \approx \frac{g(w + \epsilon v) - g(w - \epsilon v)}{2\epsilon}. $$
#
# **Power iteration** multiplies a random vector by $H$ again and again and scales it back to length 1. It
# turns into the eigenvector whose eigenvalue is largest in size, and $v^\top H v$ into that eigenvalue. You
# may take it to be positive. Return the learning rate at which gradient descent near these weights begins
# to diverge. Aim at half a per cent; with $\epsilon = 10^{-4}$ that is possible in all tests.


# %% nbgrader="solution" grade_id="largest_stable_lr"
def largest_stable_lr(gradient, weights, num_steps=200):
    """Return the learning rate above which gradient descent diverges near `weights`, a float.

    gradient: function that maps an array (d,) to the gradient there, (d,).  weights: float array (d,).
    num_steps: multiplications by the Hessian.
    """
    ### BEGIN SOLUTION
    epsilon = 1e-4
    v = np.random.default_rng(0).standard_normal(weights.shape)
    v /= np.linalg.norm(v)
    curvature = 0.0
    for _ in range(num_steps):
        # Two gradients: the gradient at `weights` itself is rarely zero and must cancel.
        hv = (gradient(weights + epsilon * v) - gradient(weights - epsilon * v)) / (2 * epsilon)
        curvature = float(v @ hv)
        v = hv / np.linalg.norm(hv)
    return 2 / curvature
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_stable_lr" points=2
def lr_of_a_bowl(matrix, offset, weights):
    return largest_stable_lr(lambda w: matrix @ w + offset, weights)


matrix_9 = np.diag([0.1, 0.7, 2.0, 5.0])
lr_9 = probe(lr_of_a_bowl, matrix_9, np.array([3.0, -1.0, 2.0, 4.0]), np.ones(4))


def lr_of_a_trough(curvatures, weights):
    # The loss sum(c * cosh(200 w)) / 200**2 has the gradient below and the curvatures c * cosh(200 w).
    return largest_stable_lr(lambda w: curvatures * np.sinh(200 * w) / 200, weights)


curvatures_9 = np.append(np.linspace(0, 1, 199_999), 5.0)
wide_lr_9 = probe(lr_of_a_trough, curvatures_9, np.full(200_000, 0.01))
points_for(
    [
        (
            1,
            lambda: expect_close(
                lr_9,
                2 / 5.0,
                rtol=0.005,
                hint="a bowl of curvatures 0.1, 0.7, 2 and 5; one gradient alone is not H v",
            ),
        ),
        (
            1,
            lambda: expect_close(
                wide_lr_9,
                2 / (5.0 * np.cosh(2.0)),
                rtol=0.005,
                hint="200,000 weights, a curvature that changes: look to both sides",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_stable_lr_hidden" points=1
# Graded with tests that you do not see: logistic regression, 30 weights. Half the points within 5 %.
### BEGIN HIDDEN TESTS
import torch


def lr_of_logistic_regression(x, y, weights):
    def gradient(w):
        return x.T @ (1 / (1 + np.exp(-(x @ w))) - y) / len(y)

    return largest_stable_lr(gradient, weights)


x_10 = random_case(10, 200, 30) * np.linspace(0.2, 2.0, 30)
x_10 = x_10 + 0.3 * random_case(11, 200, 1)
y_10, weights_10 = (random_case(12, 200) > 0) * 1.0, 0.2 * random_case(13, 30)


def logistic_loss_10(w):
    z = torch.tensor(x_10) @ w
    return torch.nn.functional.binary_cross_entropy_with_logits(z, torch.tensor(y_10))


hessian_10 = torch.autograd.functional.hessian(logistic_loss_10, torch.tensor(weights_10))
want_10 = 2 / torch.linalg.eigvalsh(hessian_10)[-1].item()
lr_10 = probe(lr_of_logistic_regression, x_10, y_10, weights_10)
points_for(
    [
        (0.5, lambda: expect_close(lr_10, want_10, rtol=0.05, hint="2 / largest eigenvalue of the Hessian")),
        (0.5, lambda: expect_close(lr_10, want_10, rtol=0.005, hint="use all num_steps multiplications")),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Four bugs in one loop (4 points)
#
# The next cell is a training loop that ran for weeks in somebody's project. It raises no error, its loss
# falls, and it holds four well-known bugs. (`orders` has one row an epoch: the order in which the samples
# are to be visited. Given from outside, so that every run is the same.) Write `train` with the same
# arguments and results and without the bugs: mini-batch gradient descent on the **mean** squared error of
# each batch, every sample paired with its own target, and the weights as they were after the epoch with the
# lowest validation loss.


# %% nbgrader="locked" grade_id="buggy"
def train_with_bugs(features, targets, val_features, val_targets, orders, batch_size, lr):
    weights = np.zeros(features.shape[1])
    gradient = np.zeros(features.shape[1])
    best_loss, best_weights, history = np.inf, weights, []
    for order in orders:
        features = features[order]
        for start in range(0, len(features), batch_size):
            x = features[start : start + batch_size]
            t = targets[start : start + batch_size]
            gradient += 2 * x.T @ (x @ weights - t) / batch_size
            weights -= lr * gradient
        loss = ((val_features @ weights - val_targets) ** 2).mean()
        history.append(float(loss))
        if loss < best_loss:
            best_loss, best_weights = loss, weights
    return best_weights, history


# %% nbgrader="solution" grade_id="train"
def train(features, targets, val_features, val_targets, orders, batch_size, lr):
    """Return (best_weights, history): the weights after the epoch with the lowest validation loss, and
    the list of validation losses, one an epoch.

    features (n, d), targets (n,), the same for validation; orders int (epochs, n). All weights start at zero.
    """
    ### BEGIN SOLUTION
    weights = np.zeros(features.shape[1])
    best_loss, best_weights, history = np.inf, weights, []
    for order in orders:
        for start in range(0, len(order), batch_size):
            ids = order[start : start + batch_size]  # one index for both: pairs stay together
            x, t = features[ids], targets[ids]
            gradient = 2 * x.T @ (x @ weights - t) / len(ids)  # fresh, and the last batch may be smaller
            weights = weights - lr * gradient  # a new array: best_weights is not changed with it
        loss = ((val_features @ weights - val_targets) ** 2).mean()
        history.append(float(loss))
        if loss < best_loss:
            best_loss, best_weights = loss, weights
    return best_weights, history
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_train_cleared" points=1
def history_of_full_batches(x, t, lr, num_steps):
    """Validation losses on the training set: a step multiplies the distance to the minimum by I - lr H."""
    minimum = np.linalg.lstsq(x, t, rcond=None)[0]
    step = np.eye(x.shape[1]) - lr * 2 / len(t) * x.T @ x
    path = [minimum - np.linalg.matrix_power(step, k) @ minimum for k in range(1, num_steps + 1)]
    return [((x @ w - t) ** 2).mean() for w in path]


x_11, t_11 = random_case(14, 12, 3), random_case(15, 12)
in_order_11 = np.tile(np.arange(12), (6, 1))
_, history_11 = train(x_11, t_11, x_11, t_11, in_order_11, 12, 0.05)
hint_11 = "six full-batch steps: each must use the gradient of its own step alone"
if np.allclose(history_11, history_of_full_batches(x_11, t_11, 0.025, 6)):
    hint_11 = "your gradient is half of the right one: the slope of a square has a factor 2"
expect_close(history_11, history_of_full_batches(x_11, t_11, 0.05, 6), hint=hint_11)

# %% nbgrader="tests" grade_id="test_train_pairs" points=1
x_12, t_12 = random_case(16, 10, 3), random_case(17, 10)
shuffled_12 = np.random.default_rng(18).permutation(10)[None]
weights_12, _ = train(x_12, t_12, x_12, t_12, shuffled_12, 10, 0.03)
want_12 = 0.03 * 2 / 10 * x_12.T @ t_12
hint_12 = "one step on the full batch from zero: the order of the samples must make no difference"
if np.allclose(weights_12, want_12 / 2):
    hint_12 = "your gradient is half of the right one: the slope of a square has a factor 2"
expect_close(weights_12, want_12, hint=hint_12)

# %% nbgrader="tests" grade_id="test_train_mean" points=1
x_13, t_13 = random_case(19, 5, 2), random_case(20, 5)
weights_13, _ = train(x_13, t_13, x_13, t_13, np.arange(5)[None], 8, 0.03)
want_13 = 0.03 * 2 / 5 * x_13.T @ t_13
hint_13 = "5 samples and batch_size 8: the mean is over the samples that are in the batch"
if np.allclose(weights_13, want_13 / 2):
    hint_13 = "your gradient is half of the right one: the slope of a square has a factor 2"
expect_close(weights_13, want_13, hint=hint_13)

# %% nbgrader="tests" grade_id="test_train_best_hidden" points=1
# Graded with tests that you do not see: the lowest validation loss comes early, and training goes on.
### BEGIN HIDDEN TESTS
x_14, t_14 = random_case(21, 9, 3), random_case(22, 9)
first_14 = 0.02 * 2 / 9 * x_14.T @ t_14
# Validation targets that the weights after epoch 1 meet exactly: every later epoch is worse.
best_14, history_14 = train(x_14, t_14, x_14, x_14 @ first_14, np.tile(np.arange(9), (5, 1)), 9, 0.02)
expect_close(
    best_14, first_14, hint="keep a copy of the best weights; an in-place update changes what was kept"
)
expect_equal([len(history_14), int(np.argmin(history_14))], [5, 0], hint="one validation loss an epoch")
### END HIDDEN TESTS

# %%
# Try both loops on data of your own: which of the bugs can be seen in the history of losses, and which can't?

# %% [markdown] nbgrader="answer" grade_id="explain" points=3
# ## 6. Read a report (3 points, read by a person)
#
# > We trained the same network twice for 20 epochs at learning rate 0.1, with batches of 32 and of 1024.
# > The small batch reached 97.2 % test accuracy, the large one 90.6 %. Small batches therefore generalize
# > better. Of all epochs of the small-batch run we kept the one with the best test accuracy; on our 360
# > test images it beats last year's system (96.4 %).
#
# Name the three claims that these data do not support. For each, say in one or two sentences why, with a
# number where there is one, and which measurement would settle it.
#
# ### BEGIN SOLUTION
# One point for each claim, half for naming it and half for the reason with a measurement that would settle
# it.
#
# 1. "Small batches generalize better." The runs were compared at equal epochs and equal learning rate: the
#    large batch made 32 times fewer updates, at a rate that suits the small one. Its training loss was
#    probably far from its minimum, so this is optimization, not generalization. Settle: tune the learning
#    rate for each batch size on validation data, train both to the same training loss, show loss against
#    samples and against updates, several seeds.
# 2. "97.2 %." The epoch was chosen on the test set, so the best of 20 is partly luck and the number is
#    biased upwards. Settle: choose the epoch on a validation set, open the test set once (new test data,
#    since this one is used up).
# 3. "Beats last year's system." With 360 images at 97 % the standard error is sqrt(0.97 * 0.03 / 360), or
#    0.9 %. So 0.8 % (3 images) is within one standard error. Settle: more test images, or a paired
#    comparison of both systems on the same images (count those on which exactly one is right), and several
#    seeds.
# ### END SOLUTION
