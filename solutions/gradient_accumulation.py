# ---
# coursekit:
#   title: Gradient accumulation
#   forbidden: [coursekit.train, coursekit.parallel]
# ---

# %% [markdown]
# # Gradient accumulation
#
# Five functions to write and one question to answer, 20 points, about an hour. The chapter *Gradient
# accumulation* has what you need; two of the tasks ask for something that it does not show.
#
# Each task has a cell for your code, with `raise NotImplementedError` in it, and a cell of tests below. The
# tests say what is wrong in a sentence. Some tests are hidden; they use other numbers. Tensors are small
# and everything runs on the CPU.

# %% nbgrader="locked" grade_id="setup"
import numpy as np
import torch
from coursekit.notebooks import expect_close, expect_equal, points_for, probe
from torch import nn
from torch.nn import functional as F

IGNORE_INDEX = -100  # the label of a position that does not count

# %% [markdown]
# ## A device with little memory
#
# To feel a limit without filling your computer, the tests run models on a `SmallDevice`. It has room for
# the activations of `max_rows` rows. A row takes its room in a forward pass with gradients, and gives it
# back in the backward pass, or when nothing needs its graph any more. If there is no room left, it raises
# `MemoryError`. You need not understand how it does that; you need to know that it does.


# %% nbgrader="locked" grade_id="small_device"
class Room:
    """The room that some rows take; given back once, at the latest when nothing refers to it."""

    def __init__(self, device, rows):
        self.device, self.rows = device, rows
        device.held += rows

    def free(self):
        """Give the room back; a second time does nothing."""
        self.device.held -= self.rows
        self.rows = 0

    __del__ = free


class Hold(torch.autograd.Function):
    """Pass a tensor through; hold room for its rows until backward."""

    @staticmethod
    def forward(ctx, x, device):
        """Take room."""
        ctx.room = Room(device, len(x))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        """Give it back."""
        ctx.room.free()
        return gradient, None


class SmallDevice(nn.Module):
    """Run a module, with room for the activations of `max_rows` rows at a time."""

    def __init__(self, module, max_rows):
        super().__init__()
        self.module, self.max_rows, self.held = module, max_rows, 0

    def forward(self, x):
        """Run the module, or raise MemoryError."""
        if self.held + len(x) > self.max_rows:
            raise MemoryError(
                f"room for {self.max_rows} rows, {self.held} of them taken, and {len(x)} more wanted"
            )
        out = self.module(x)
        return Hold.apply(out, self) if out.requires_grad else out


# %%
# Try it: two passes of two rows fit into four; the third does not, unless a backward pass comes in between.
device = SmallDevice(nn.Linear(3, 1), max_rows=4)
first, second = device(torch.ones(2, 3)), device(torch.ones(2, 3))
first.sum().backward()
third = device(torch.ones(2, 3))
print("rows held:", device.held)

# %% [markdown]
# ## 1. The step (3 points)
#
# Write the heart of a training loop for a language model: the gradient of the mean loss over all labels
# that count, from micro-batches that hold unequal numbers of them. The device has room for one micro-batch
# at a time.


# %% nbgrader="solution" grade_id="accumulate"
def accumulate(model, micro_batches):
    """Add the gradient of the mean loss per valid label to every `p.grad` of the model; return that loss.

    model: maps input_ids (b, t) to logits (b, t, vocab_size). It has room for one micro-batch at a time.
    micro_batches: list of (input_ids, labels) pairs, both (b, t) with b and t different from pair to pair.
        A label IGNORE_INDEX does not count. A micro-batch may have no label that counts; the whole list
        always has one.
    Returns: the mean loss over all labels that count, a float, in nats.

    What `p.grad` holds already is kept and added to: zeroing is the caller's business.
    """
    ### BEGIN SOLUTION
    num_valid = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in micro_batches)
    total = 0.0
    for input_ids, labels in micro_batches:
        logits = model(input_ids).flatten(0, 1)
        loss = (
            F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum") / num_valid
        )
        loss.backward()
        total += loss.item()
    return total
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_accumulate" points=2
def gradient_and_loss(table, micro_batches, max_rows, already):
    embedding = nn.Embedding.from_pretrained(table.clone(), freeze=False)
    embedding.weight.grad = already.clone()
    loss = accumulate(SmallDevice(embedding, max_rows), micro_batches)
    return embedding.weight.grad, loss


def by_formula(table, micro_batches):
    """The gradient of softmax regression, probability minus label, position by position."""
    gradient, losses, weights = np.zeros(table.shape), [], table.numpy()
    for input_ids, labels in micro_batches:
        for i, label in zip(input_ids.flatten().tolist(), labels.flatten().tolist(), strict=True):
            if label != IGNORE_INDEX:
                p = np.exp(weights[i]) / np.exp(weights[i]).sum()
                losses.append(-np.log(p[label]))
                gradient[i] += p - np.eye(len(p))[label]
    return gradient / len(losses), sum(losses) / len(losses)


table = torch.linspace(-1, 1, 20, dtype=torch.float64).sin().reshape(4, 5)
one_label = (torch.tensor([[0, 1, 2]]), torch.tensor([[4, IGNORE_INDEX, IGNORE_INDEX]]))
six_labels = (torch.tensor([[3, 1, 2], [1, 0, 0]]), torch.tensor([[0, 1, 3], [2, 2, 4]]))
want_gradient, want_loss = by_formula(table, [one_label, six_labels])
got_gradient, got_loss = probe(
    gradient_and_loss, table, [one_label, six_labels], 2, torch.zeros(4, 5).double()
)
got_added, _ = probe(gradient_and_loss, table, [one_label, six_labels], 2, torch.ones(4, 5).double())


def expect_added(with_ones, with_zeros):
    """The same gradient, right or wrong, beside what p.grad held before."""
    expect_equal(bool((with_zeros != 0).any()), True, hint="p.grad must hold a gradient after the call")
    hint = "softmax's probabilities sum to 1, so the gradient of each row of logits sums to 0; yours does not"
    expect_close(with_zeros.sum(dim=1), torch.zeros(4).double(), atol=1e-9, hint=hint)
    difference = with_ones - with_zeros
    hint = "p.grad held ones before one call and zeros before another: keep them and add"
    expect_close(difference, torch.ones(4, 5).double(), hint=hint)


points_for(
    [
        (
            1,
            lambda: expect_close(
                got_gradient,
                want_gradient,
                hint="the gradient, from micro-batches that hold 1 and 6 labels: what does one label weigh?",
            ),
        ),
        (
            0.5,
            lambda: expect_close(got_loss, want_loss, hint="the returned loss is the mean over all 7 labels"),
        ),
        (
            0.5,
            lambda: expect_added(got_added, got_gradient),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_accumulate_hidden" points=1
# Graded with tests that you do not see: other lengths, and a micro-batch in which no label counts.
### BEGIN HIDDEN TESTS
def gradient_and_loss(table, micro_batches, max_tokens, already):
    import weakref

    rooms = weakref.WeakSet()

    class Taken:
        def __init__(self, tokens):
            self.tokens = tokens
            rooms.add(self)

    class Take(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.taken = Taken(x[..., 0].numel())
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            ctx.taken.tokens = 0
            return gradient

    class AnotherDevice(nn.Module):
        # Of its own: an answer that goes round `SmallDevice`, whose insides it has read, finds none here.
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(table.clone())

        def forward(self, x):
            if sum(taken.tokens for taken in rooms) + x.numel() > max_tokens:
                raise MemoryError(f"room for {max_tokens} tokens, and {x.numel()} more wanted")
            out = 2 * self.weight[x]
            return Take.apply(out) if out.requires_grad else out

    model = AnotherDevice()
    model.weight.grad = already.clone()
    loss = accumulate(model, micro_batches)
    return model.weight.grad, loss


def by_formula(table, micro_batches):
    gradient, losses, weights = np.zeros(table.shape), [], 2 * table.numpy()
    for input_ids, labels in micro_batches:
        for i, label in zip(input_ids.flatten().tolist(), labels.flatten().tolist(), strict=True):
            if label != IGNORE_INDEX:
                p = np.exp(weights[i]) / np.exp(weights[i]).sum()
                losses.append(-np.log(p[label]))
                gradient[i] += 2 * (p - np.eye(len(p))[label])
    return gradient / len(losses), sum(losses) / len(losses)


table = torch.linspace(-2, 3, 18, dtype=torch.float64).cos().reshape(3, 6)
micro_batches = [
    (torch.tensor([[0, 1], [2, 2], [1, 0]]), torch.tensor([[5, 0], [1, IGNORE_INDEX], [3, 3]])),
    (torch.tensor([[1]]), torch.tensor([[IGNORE_INDEX]])),
    (torch.tensor([[2, 0, 1, 1]]), torch.tensor([[IGNORE_INDEX, 4, 2, IGNORE_INDEX]])),
]
want_gradient, want_loss = by_formula(table, micro_batches)
got_gradient, got_loss = probe(gradient_and_loss, table, micro_batches, 6, torch.zeros(3, 6).double())
expect_close(
    got_gradient, want_gradient, hint="5, 0 and 2 labels: each counts 1/7, and nothing is divided by 0"
)
expect_close(got_loss, want_loss, hint="the returned loss is the mean over all labels that count")
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Several ranks (2 points)
#
# Ranks have done their micro-steps and hold sums of gradients; now a library will *average* over the ranks
# what you give it, as `DistributedDataParallel` does. Say what each rank has to hand over so that the
# average is the gradient of the mean loss over all labels of all ranks. The ranks may hold different
# numbers of micro-batches, and of labels.


# %% nbgrader="solution" grade_id="hand_over"
def hand_over(gradient_sums, num_valid):
    """Return a list: for each rank, the tensor that it gives to the averaging.

    gradient_sums: gradient_sums[r][k] is the gradient, a tensor (d,), of the loss *summed* over the labels of
        rank r's micro-batch k.
    num_valid: num_valid[r][k] is the number of those labels.

    The ranks have told each other their counts, and nothing else: what rank r hands over is made of its own
    gradients, gradient_sums[r].
    """
    ### BEGIN SOLUTION
    total = sum(sum(counts) for counts in num_valid)
    return [len(num_valid) * sum(sums) / total for sums in gradient_sums]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_hand_over" points=1
sums = [[torch.tensor([6.0, 0.0]), torch.tensor([0.0, 3.0])], [torch.tensor([1.0, 1.0])]]


def expect_average(num_valid, num_labels):
    """The mean over both ranks of what they hand over is the gradient of the mean over all labels."""
    handed = hand_over(sums, num_valid)
    expect_equal(len(handed), 2, hint="one tensor for each rank")
    average = (handed[0] + handed[1]) / 2
    expect_close(
        (average * num_labels / torch.tensor([7.0, 4.0])).tolist(),
        [1.0, 1.0],
        hint=f"{num_valid} labels: average over wanted, for both numbers: two equal ratios speak of a "
        "missing factor, two unequal ones of wrong weights",
    )


def expect_own(num_valid, num_labels):
    """What rank 1 hands over is made of its own gradient."""
    expect_close(
        hand_over(sums, num_valid)[1],
        torch.tensor([2.0, 2.0]) / num_labels,
        hint=f"{num_valid} labels: what rank 1 makes of its own gradient alone",
    )


points_for(
    [
        (0.5, lambda: (expect_average([[4, 2], [2]], 8), expect_average([[4, 2], [10]], 16))),
        (0.5, lambda: (expect_own([[4, 2], [2]], 8), expect_own([[4, 2], [10]], 16))),
    ]
)

# %% nbgrader="tests" grade_id="test_hand_over_hidden" points=1
# Graded with tests that you do not see: three ranks, unequal in every way; what each single rank hands over.
### BEGIN HIDDEN TESTS
sums = [
    [torch.tensor([2.0, 5.0])],
    [torch.tensor([1.0, 0.0])] * 3,
    [torch.tensor([-4.0, 8.0]), torch.tensor([0.5, 0.5])],
]
handed = hand_over(sums, [[10], [1, 1, 3], [20, 5]])
want = [[3 * 2 / 40, 3 * 5 / 40], [3 * 3 / 40, 0.0], [3 * -3.5 / 40, 3 * 8.5 / 40]]
expect_equal(len(handed), 3, hint="one tensor for each rank")
for rank in range(3):
    expect_close(
        handed[rank],
        torch.tensor(want[rank]),
        hint="a rank hands over its own gradients only, times ranks over labels",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Which micro-batch fits? (3 points)
#
# You know the bytes that a token keeps for the backward pass, what else lies in memory (weights, gradients,
# optimizer state), and the size of the memory. Choose the largest micro-batch that fits *and* gives exactly
# the global batch that was asked for.


# %% nbgrader="solution" grade_id="plan_step"
def plan_step(global_batch_size, dp_size, seq_len, bytes_per_token, other_bytes, memory_bytes):
    """Return (micro_batch_size, grad_accum_steps), or None if there is no such plan.

    global_batch_size: sequences of an optimizer step, over all ranks; equal to
        micro_batch_size * grad_accum_steps * dp_size.
    dp_size: number of data-parallel ranks, each with a memory of its own.
    seq_len: tokens of a sequence.
    bytes_per_token: bytes of activations that a token keeps.
    other_bytes: bytes on each rank that do not depend on the batch.
    memory_bytes: bytes of each rank's memory; using all of it is allowed.

    Of all plans that fit, the one with the largest micro_batch_size.
    """
    ### BEGIN SOLUTION
    if global_batch_size % dp_size:
        return None
    per_rank = global_batch_size // dp_size
    for micro_batch_size in range(per_rank, 0, -1):
        fits = other_bytes + micro_batch_size * seq_len * bytes_per_token <= memory_bytes
        if per_rank % micro_batch_size == 0 and fits:
            return micro_batch_size, per_rank // micro_batch_size
    return None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_plan_step" points=2
points_for(
    [
        (
            1,
            lambda: (
                expect_equal(
                    plan_step(64, 4, 100, 10, 1000, 9000),
                    (8, 2),
                    hint="8 sequences keep 8,000 bytes, beside 1,000 others",
                ),
                expect_equal(
                    plan_step(72, 4, 100, 10, 1000, 7000),
                    (6, 3),
                    hint="18 sequences a rank, and 6 of them fit beside the others",
                ),
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                plan_step(60, 2, 100, 10, 1000, 9000),
                (6, 5),
                hint="8 would fit, but 30 sequences a rank cannot be made of eights",
            ),
        ),
        (
            0.5,
            lambda: (
                expect_equal(plan_step(64, 4, 100, 10, 8500, 9000), None, hint="not even one sequence fits"),
                expect_equal(plan_step(64, 4, 100, 10, 8000, 9000), (1, 16), hint="just one sequence fits"),
                expect_equal(plan_step(64, 4, 100, 10, 7000, 9000), (2, 8), hint="just two sequences fit"),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_plan_step_hidden" points=1
# Graded with tests that you do not see: other sizes, a prime number, a batch that the ranks cannot share.
### BEGIN HIDDEN TESTS
expect_equal(
    plan_step(96, 8, 2048, 5000, 10**9, 10**9 + 5 * 2048 * 5000),
    (4, 3),
    hint="5 would fit, but does not divide 12",
)
expect_equal(
    plan_step(26, 2, 10, 1, 0, 100), (1, 13), hint="13 is prime and does not fit, so one sequence a pass"
)
expect_equal(plan_step(26, 2, 10, 1, 0, 130), (13, 1), hint="all 13 fit exactly")
expect_equal(plan_step(10, 4, 10, 1, 0, 10**6), None, hint="10 sequences cannot be shared by 4 ranks")
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A colleague's trainer (6 points)
#
# A colleague trains a linear model, `x @ w`, on the mean squared error, and complains: with accumulation
# the weights are not those of the run on whole batches. Here is the code. It holds **five mistakes**.


# %%
def colleagues_train(w, micro_batches, grad_accum_steps, learning_rates, max_grad_norm):
    w = nn.Parameter(w.clone())
    optimizer = torch.optim.SGD([w], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: learning_rates[min(i, len(learning_rates) - 1)]
    )
    for i, (x, y) in enumerate(micro_batches):
        optimizer.zero_grad()
        loss = ((x @ w - y) ** 2).mean() / grad_accum_steps
        loss.backward()
        nn.utils.clip_grad_norm_([w], max_grad_norm)
        schedule.step()
        if (i + 1) % grad_accum_steps == 0:
            optimizer.step()
    return w.detach()


# %% [markdown]
# Write `train` so that it does what its docstring says. Start from the colleague's code or from nothing.
# The tests look at one mistake each, so that mending some of them counts.


# %% nbgrader="solution" grade_id="train"
def train(w, micro_batches, grad_accum_steps, learning_rates, max_grad_norm):
    """Return the weights after one epoch of SGD with gradient accumulation, a tensor (d,).

    Equals the run in which each step's micro-batches are one batch.

    w: initial weights, a tensor (d,), which stays unchanged.
    micro_batches: list of (x, y) pairs, x (b, d) and y (b,), with b different from pair to pair.
    grad_accum_steps: micro-batches of an optimizer step. What is left at the end of the epoch makes a last,
        smaller step.
    learning_rates: learning_rates[i] is the rate of optimizer step i.
    max_grad_norm: the gradient of a step is clipped to this norm.
    """
    ### BEGIN SOLUTION
    w = nn.Parameter(w.clone())
    for step, start in enumerate(range(0, len(micro_batches), grad_accum_steps)):
        group = micro_batches[start : start + grad_accum_steps]
        num_rows = sum(len(x) for x, _ in group)
        w.grad = None
        for x, y in group:
            loss = ((x @ w - y) ** 2).sum() / num_rows
            loss.backward()
        nn.utils.clip_grad_norm_([w], max_grad_norm)
        with torch.no_grad():
            w -= learning_rates[step] * w.grad
    return w.detach()
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_train" points=4
def on_whole_batches(w, groups, learning_rates, max_grad_norm):
    """Each step's rows in one batch, the gradient by hand: 2 xT (x w - y) / n."""
    w = w.numpy().copy()
    for group, rate in zip(groups, learning_rates, strict=True):
        x, y = (np.concatenate([np.asarray(part[i]) for part in group]) for i in range(2))
        gradient = 2 * x.T @ (x @ w - y) / len(y)
        norm = np.linalg.norm(gradient)
        w = w - rate * gradient * (min(1.0, max_grad_norm / norm))
    return w


def make_rows(sizes, seed):
    rng = np.random.default_rng(seed)
    return [(torch.tensor(rng.normal(size=(b, 3))), torch.tensor(rng.normal(size=b))) for b in sizes]


w = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
equal, unequal = make_rows([3, 3, 3, 3], seed=0), make_rows([1, 6, 2, 5], seed=1)
loose, tight = 1e6, 0.3


def largest_pass(w, micro_batches):
    """Train; return the weights given as they are now, the result, the rows of the largest tensor kept."""
    rows = [0]

    def note(tensor):
        rows.append(len(tensor) if tensor.ndim else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        after = train(w, micro_batches, 2, [0.1, 0.1], 1e6)
    return w.detach(), after, max(rows)


def expect_unchanged(same, after, want):
    """Right weights, from a copy."""
    expect_close(same, w, hint="the weights that you were given have changed: train a copy")
    expect_close(after, want, rtol=1e-5, hint="the given weights are unchanged; the result is not right")


def expect_small_passes(rows, after, want):
    """Right weights from passes over one micro-batch each."""
    expect_close(after, want, rtol=1e-5, hint="equal sizes: first the weights, then the size of a pass")
    hint = "does each pass see one micro-batch (3 rows)? Joined, they would not fit into a small memory"
    expect_equal(rows <= 3, True, hint=hint)


same, after, rows = probe(largest_pass, w.clone(), equal)
want = on_whole_batches(w, [equal[:2], equal[2:]], [0.1, 0.1], loose)
points_for(
    [
        (0.25, lambda: expect_unchanged(same, after, want)),
        (0.25, lambda: expect_small_passes(rows, after, want)),
        (
            0.5,
            lambda: expect_close(
                train(w.clone(), equal, 2, [0.1, 0.1], loose),
                on_whole_batches(w, [equal[:2], equal[2:]], [0.1, 0.1], loose),
                rtol=1e-5,
                hint="equal sizes, no clipping, one rate: are gradients added up, and zeroed between steps?",
            ),
        ),
        (
            1,
            lambda: expect_close(
                train(w.clone(), unequal, 2, [0.1, 0.1], loose),
                on_whole_batches(w, [unequal[:2], unequal[2:]], [0.1, 0.1], loose),
                rtol=1e-5,
                hint="micro-batches of 1 and 6 rows: every row of a step weighs the same",
            ),
        ),
        (
            1,
            lambda: expect_close(
                train(w.clone(), equal, 2, [0.1, 0.1], tight),
                on_whole_batches(w, [equal[:2], equal[2:]], [0.1, 0.1], tight),
                rtol=1e-5,
                hint="a small max_grad_norm: what is clipped, and how often in a step?",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                train(w.clone(), equal, 2, [0.1, 0.02], loose),
                on_whole_batches(w, [equal[:2], equal[2:]], [0.1, 0.02], loose),
                rtol=1e-5,
                hint="two steps with two rates: what does the schedule count?",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                train(w.clone(), equal[:3], 2, [0.1, 0.1], loose),
                on_whole_batches(w, [equal[:2], equal[2:3]], [0.1, 0.1], loose),
                rtol=1e-5,
                hint="three micro-batches, two a step: the third makes a step of its own",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_train_hidden" points=2
# Graded with tests that you do not see: everything at once, and that the weights given stay as they were.
### BEGIN HIDDEN TESTS
def on_whole_batches(w, groups, learning_rates, max_grad_norm):
    w = w.numpy().copy()
    for group, rate in zip(groups, learning_rates, strict=True):
        x, y = (np.concatenate([np.asarray(part[i]) for part in group]) for i in range(2))
        gradient = 2 * x.T @ (x @ w - y) / len(y)
        norm = np.linalg.norm(gradient)
        w = w - rate * gradient * (min(1.0, max_grad_norm / norm))
    return w


def weights_before_and_after(w, micro_batches):
    after = train(w, micro_batches, 3, [0.2, 0.1, 0.05], 1.0)
    return w.detach(), after


rng = np.random.default_rng(7)
rows = [
    (torch.tensor(rng.normal(size=(b, 4))), torch.tensor(rng.normal(size=b)))
    for b in (4, 1, 2, 7, 3, 1, 5, 2)
]
w = torch.tensor([1.0, 0.0, -2.0, 0.25], dtype=torch.float64)
before, after = probe(weights_before_and_after, w.clone(), rows)
want = on_whole_batches(w, [rows[:3], rows[3:6], rows[6:]], [0.2, 0.1, 0.05], 1.0)
points_for(
    [
        (
            1.5,
            lambda: expect_close(
                after,
                want,
                rtol=1e-5,
                hint="eight unequal micro-batches, three a step, clipped, with a schedule",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                torch.stack([before, after]),
                np.stack([[1.0, 0.0, -2.0, 0.25], want]),
                rtol=1e-5,
                hint="train on a copy: the weights that were given (row 0) stay as they were",
            ),
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. A loss that cannot be cut (4 points)
#
# A *contrastive* loss teaches an encoder which two inputs belong together: row $i$ of `a` with row $i$ of
# `b`. The other rows of the batch are the wrong answers to choose from, so the loss of a row depends on the
# whole batch.


# %% nbgrader="locked" grade_id="contrastive_loss"
def contrastive_loss(za, zb):
    """Mean loss in nats of finding, for each row of za (n, e), its partner among all n rows of zb (n, e)."""
    return F.cross_entropy(za @ zb.T / 0.5, torch.arange(len(za)))


# %% [markdown]
# Add up the losses of micro-batches of 4, and each row is compared with 3 wrong answers, not with the 63 of
# a batch of 64. That is an easier question with another gradient. Before you go on: what would the loss of
# a micro-batch of *one* row be?
#
# The gradient of the whole batch can still be had, on a device with room for one micro-batch. The
# embeddings are small; it is what lies between input and embedding that fills the memory. Think of the
# chain rule: what does the backward pass of an encoder need to know about the loss, and nothing more? (Each
# micro-batch may pass through the encoder more than once.)


# %% nbgrader="solution" grade_id="accumulate_contrastive"
def accumulate_contrastive(encode, pieces):
    """Add the gradient of contrastive_loss over all rows of all pieces to every `p.grad`; return the loss.

    encode: a module, maps rows (n, d) to embeddings (n, e). It has room for the a and the b of one piece at a
        time, and raises MemoryError beyond that, also for too many rows without gradients.
    pieces: list of (a, b) pairs of tensors, both (n_k, d), with n_k different from pair to pair.
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        za = torch.cat([encode(a) for a, _ in pieces])
        zb = torch.cat([encode(b) for _, b in pieces])
    za.requires_grad_()
    zb.requires_grad_()
    loss = contrastive_loss(za, zb)
    loss.backward()  # gradients of the embeddings alone
    start = 0
    for a, b in pieces:
        rows = slice(start, start + len(a))
        torch.autograd.backward([encode(a), encode(b)], [za.grad[rows], zb.grad[rows]])
        start += len(a)
    return loss.item()
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_contrastive" points=2
def encoder_gradient(weight, pieces, max_rows):
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    linear.weight.data = weight.clone()
    loss = accumulate_contrastive(SmallDevice(nn.Sequential(linear, nn.Tanh()), max_rows), pieces)
    return linear.weight.grad, loss


def on_the_whole_batch(weight, pieces):
    """One pass over all rows, on a device without limits."""
    weight = weight.clone().requires_grad_()
    a, b = (torch.cat([piece[i] for piece in pieces]) for i in range(2))
    similarity = torch.tanh(a @ weight.T) @ torch.tanh(b @ weight.T).T / 0.5
    loss = -similarity.log_softmax(dim=1).diagonal().mean()
    loss.backward()
    return weight.grad, loss.item()


generator = torch.Generator().manual_seed(0)
weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
a = torch.randn(6, 5, generator=generator, dtype=torch.float64)
b = a + 0.3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
one_piece, three_pieces = [(a, b)], [(a[:2], b[:2]), (a[2:3], b[2:3]), (a[3:], b[3:])]
want_gradient, want_loss = on_the_whole_batch(weight, one_piece)
points_for(
    [
        (
            0.5,
            lambda: expect_close(
                probe(encoder_gradient, weight, one_piece, 12)[0],
                want_gradient,
                hint="a single piece: the plain gradient",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                probe(encoder_gradient, weight, three_pieces, 6)[1],
                want_loss,
                hint="pieces of 2, 1 and 3 rows: the loss compares each row with all 6",
            ),
        ),
        (
            1,
            lambda: expect_close(
                probe(encoder_gradient, weight, three_pieces, 6)[0],
                want_gradient,
                hint="pieces of 2, 1 and 3 rows: the gradient of the loss over all 6, a piece at a time",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_contrastive_hidden" points=2
# Graded with tests that you do not see: more and other pieces, and a gradient that is there already.
### BEGIN HIDDEN TESTS
def encoder_gradient(weight, pieces, max_rows):
    import weakref

    rooms = weakref.WeakSet()

    class Taken:
        def __init__(self, rows):
            self.rows = rows
            rooms.add(self)

    class Take(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.taken = Taken(len(x))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            ctx.taken.rows = 0
            return gradient

    class AnotherDevice(nn.Module):
        # Of its own: an answer that goes round `SmallDevice`, whose insides it has read, finds none here.
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(weight.clone())

        def forward(self, x):
            if sum(taken.rows for taken in rooms) + len(x) > max_rows:
                raise MemoryError(f"room for {max_rows} rows, and {len(x)} more wanted")
            out = torch.sin(x @ self.weight.T)
            return Take.apply(out) if out.requires_grad else out

    encode = AnotherDevice()
    encode.weight.grad = torch.ones_like(weight)
    loss = accumulate_contrastive(encode, pieces)
    return encode.weight.grad, loss


def on_the_whole_batch(weight, pieces):
    weight = weight.clone().requires_grad_()
    a, b = (torch.cat([piece[i] for piece in pieces]) for i in range(2))
    similarity = torch.sin(a @ weight.T) @ torch.sin(b @ weight.T).T / 0.5
    loss = -similarity.log_softmax(dim=1).diagonal().mean()
    loss.backward()
    return weight.grad, loss.item()


generator = torch.Generator().manual_seed(11)
weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
pieces = [
    tuple(torch.randn(n, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    for n in (1, 4, 2, 4, 3)
]
want_gradient, want_loss = on_the_whole_batch(weight, pieces)
got_gradient, got_loss = probe(encoder_gradient, weight, pieces, 8)
points_for(
    [
        (
            1.5,
            lambda: expect_close(
                got_gradient,
                want_gradient + 1,
                hint="five pieces; the gradient is added to the ones that were there",
            ),
        ),
        (0.5, lambda: expect_close(got_loss, want_loss, hint="the loss over all 14 rows")),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Eight times too much (2 points)
#
# A bug report against a training tool (axolotl issue 2262, January 2025) says: with `micro_batch_size=8`
# and `gradient_accumulation_steps=1` the logged loss starts at about 10.5; with `micro_batch_size=1` and
# `gradient_accumulation_steps=8`, on the same data, at about 83.7. The title says that the norm of the
# gradient grew likewise.
#
# Write four to eight sentences. What is the most likely mistake, and why does it give just this factor?
# Name one measurement, on one batch, that would tell it from a mean of means. The reporter's runs use AdamW
# and clip the gradient norm to 1: would their weights have differed much? Why?

# %% [markdown] nbgrader="answer" grade_id="eight_times" points=2
# Your answer here.
#
# ### BEGIN SOLUTION
# **Model answer.** 83.7 / 10.5 is 7.97. The means of the eight micro-batches were added, and nobody divided
# the sum: each micro-batch was divided by its own number of labels, and the tool left out its own division
# by 8, as it should if the division by the step's count had been done inside the model. A sum of eight
# means is eight times their mean, so loss and gradient are both about eight times too large; exactly eight
# times the mean of means, and "about" because the labels are unequal. A mean of means alone has roughly the
# right size. So compare, on one batch and the same weights, the gradient of the accumulated step with that
# of the one-pass step: a ratio of norms near K for every K points to the missing division (cut into 4 and
# it becomes 4), a ratio near 1 with another direction to a mean of means. AdamW divides the gradient by its
# own running size, so a constant factor cancels (up to its epsilon), and clipping to norm 1 removes it from
# every gradient that is clipped; but with the factor, nearly every gradient is clipped, while otherwise
# only large ones are, so clipping changes its meaning, the relative size of small and large steps is lost,
# and weights do differ somewhat. With SGD the run would have had eight times the learning rate.
#
# **Rubric.** 1 point: names the missing division by K (or by the step's count) and derives the factor from
# K equal or nearly equal terms; half a point if the factor is named without a reason.
# 0.5 points: a measurement that separates the two faults: how the ratio changes with K, or direction
# against size. "The loss is higher" alone earns nothing, since both show it.
# 0.5 points: AdamW is insensitive to a constant factor *and* something about clipping (it hides the factor,
# or it changes which steps are clipped). Either one alone: a quarter.
# ### END SOLUTION
