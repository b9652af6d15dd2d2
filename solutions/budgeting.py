# ---
# coursekit:
#   title: The budget of a training run
#   forbidden: [coursekit.plan, coursekit.formulas, coursekit.models, coursekit.parallel, torch.utils]
# ---

# %% [markdown]
# # The budget of a training run
#
# Five tasks and a question, 19 points. You write a small planner of your own: parameters, bytes, operations,
# an audit of other people's numbers, and the choice of a run that a budget can pay for. Everything is plain
# arithmetic on numbers; use `math` if you like. The planner of the course (`coursekit.plan`) is for checking
# yourself at home, not for the answer.

# %% nbgrader="locked" grade_id="setup"
import math

import torch
from torch import nn

from coursekit.notebooks import expect_close, expect_equal, points_for

# %% [markdown]
# ## Task 1. Count the parameters (3 points)
# A Llama has no biases. Each of its layers has two norms (d numbers each), four matrices of attention (query
# and output d × d; key and value d × k, where the `n_kv_heads` heads have d / `n_heads` dimensions each), and
# three of the feed-forward layer (two d × d_ff, one d_ff × d). Around the layers: an embedding of the
# vocabulary, a last norm, and a head, which is the embedding itself if the two are tied.


# %% nbgrader="solution" grade_id="count_parameters"
def count_parameters(vocab_size, d, n_layers, n_heads, n_kv_heads, d_ff, tied):
    """Return the number of parameters, an int.

    Args:
        vocab_size: rows of the embedding.
        d: width of the hidden states.
        n_layers: number of layers.
        n_heads: query heads.
        n_kv_heads: key and value heads.
        d_ff: width inside the feed-forward layer.
        tied: whether head and embedding are one matrix.
    """
    ### BEGIN SOLUTION
    kv_width = n_kv_heads * (d // n_heads)
    layer = 2 * d * d + 2 * d * kv_width + 3 * d * d_ff + 2 * d
    return vocab_size * d * (1 if tied else 2) + n_layers * layer + d
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_count_parameters" points=2
points_for(
    [
        (
            1,
            lambda: expect_equal(
                count_parameters(32_000, 4096, 32, 32, 32, 11_008, False),
                6_738_415_616,
                hint="Llama 2 7B as published; its key and value heads are as many as its query heads",
            ),
        ),
        (
            1,
            lambda: expect_equal(
                count_parameters(128_256, 4096, 32, 32, 8, 14_336, False),
                8_030_261_248,
                hint="Llama 3 8B as published: 8 key and value heads, each of 4096 / 32 dimensions",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_count_parameters_hidden" points=1
# Graded with tests that you do not see: other shapes, tied and not, against a model that is built.
### BEGIN HIDDEN TESTS
def built(vocab_size, d, n_layers, n_heads, n_kv_heads, d_ff, tied):
    with torch.device("meta"):
        kv = d // n_heads * n_kv_heads
        widths = [(d, d), (d, kv), (d, kv), (d, d), (d, d_ff), (d, d_ff), (d_ff, d)]
        layers = [nn.Linear(a, b, bias=False) for a, b in widths for _ in range(n_layers)]
        norms = [nn.RMSNorm(d) for _ in range(2 * n_layers + 1)]
        ends = [nn.Embedding(vocab_size, d) for _ in range(1 if tied else 2)]
        return sum(p.numel() for p in nn.ModuleList(layers + norms + ends).parameters())


for shape in ((100, 24, 3, 6, 2, 40, True), (100, 24, 3, 6, 6, 40, False), (64, 32, 1, 4, 1, 48, True)):
    expect_equal(
        count_parameters(*shape),
        built(*shape),
        hint=f"vocab_size, d, n_layers, n_heads, n_kv_heads, d_ff, tied = {shape}: not what a model has",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. Bytes under ZeRO (3 points)
# What a device keeps for every parameter is a list of copies, each of a kind: `"weight"` (used by forward and
# backward pass), `"gradient"`, `"master"` (the 32-bit weight that the optimizer updates) or `"moment"`. ZeRO
# divides copies over N devices: stage 1 what only the optimizer needs, stage 2 the gradients as well, stage 3
# everything.


# %% nbgrader="solution" grade_id="state_bytes"
def state_bytes(num_params, copies, stage, n):
    """Return the bytes of state on one of n devices.

    Args:
        num_params: parameters of the model.
        copies: list of (kind, bytes a parameter); a kind may come several times.
        stage: of ZeRO: 0, 1, 2 or 3.
        n: devices that share one set of state.

    For instance, 1,000 parameters with copies [("weight", 4), ("gradient", 4), ("moment", 8)], stage 1 on 4
    devices: 1000 · (4 + 4 + 8 / 4) = 10,000 bytes.
    """
    ### BEGIN SOLUTION
    divided_from = {"weight": 3, "gradient": 2, "master": 1, "moment": 1}
    return num_params * sum(size / (n if stage >= divided_from[kind] else 1) for kind, size in copies)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_state_bytes" points=2
zero_copies = [("weight", 2), ("gradient", 2), ("master", 4), ("moment", 4), ("moment", 4)]
expect_close(
    state_bytes(1000, [("weight", 4), ("gradient", 4), ("moment", 8)], 1, 4),
    10_000,
    hint="the example of the docstring",
)
points_for(
    [
        (
            0.5,
            lambda: expect_close(state_bytes(7.5e9, zero_copies, 0, 64), 120e9, hint="16 bytes a parameter"),
        ),
        (
            0.5,
            lambda: expect_close(
                state_bytes(7.5e9, zero_copies, 1, 64),
                31.4e9,
                rtol=5e-3,
                hint="stage 1 of 7.5 billion parameters on 64 devices: ZeRO's table 1 has 31.4 GB; the "
                "master weight is optimizer state as well",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                state_bytes(7.5e9, zero_copies, 2, 64),
                16.6e9,
                rtol=5e-3,
                hint="stage 2: the table has 16.6 GB",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                state_bytes(7.5e9, zero_copies, 3, 64),
                1.88e9,
                rtol=5e-3,
                hint="stage 3: the table has 1.88 GB",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_state_bytes_hidden" points=1
# Graded with tests that you do not see: other recipes, several gradients, one device.
### BEGIN HIDDEN TESTS
playbook = [("weight", 2), ("gradient", 2), ("gradient", 4), ("master", 4), ("moment", 4), ("moment", 4)]
for stage, want in ((0, 20), (1, 8 + 12 / 16), (2, 2 + 18 / 16), (3, 20 / 16)):
    expect_close(
        state_bytes(1e9, playbook, stage, 16),
        want * 1e9,
        hint=f"stage {stage} on 16 devices, gradients in 2 and in 4 bytes",
    )
    expect_close(state_bytes(10, playbook, stage, 1), 200, hint="one device keeps everything in every stage")
expect_close(state_bytes(100, [("weight", 4)], 2, 8), 400, hint="a model that is only used has weights alone")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 3. Operations of a step (3 points)
# A multiplication and an addition are two operations. Count those of the matrix products of the forward and
# the backward pass, for one token, of the GPT in this cell: attention over the full square of `seq_len` by
# `seq_len` scores, no biases, head tied to the embedding.


# %%
class TinyGPT(nn.Module):
    """The model whose operations you count: layers of attention and feed-forward, both without norms."""

    def __init__(self, vocab_size, d, n_layers, d_ff):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d)
        sizes = [(d, 3 * d), (d, d), (d, d_ff), (d_ff, d)]
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in sizes) for _ in range(n_layers)
        )

    def forward(self, ids):
        """Return logits (b, t, vocab_size) of token ids (b, t)."""
        x = self.embedding(ids)
        for qkv, out, up, down in self.layers:
            q, k, v = qkv(x).chunk(3, dim=-1)
            x = x + out((q @ k.mT).softmax(-1) @ v)
            x = x + down(up(x).relu())
        return x @ self.embedding.weight.T


# %% nbgrader="solution" grade_id="flops_per_token"
def flops_per_token(vocab_size, d, n_layers, d_ff, seq_len):
    """Return the operations of forward and backward pass for one token of `TinyGPT`.

    Args:
        vocab_size: rows of the embedding.
        d: width.
        n_layers: layers.
        d_ff: width inside the feed-forward layer.
        seq_len: tokens of a sequence.
    """
    ### BEGIN SOLUTION
    layer = 2 * (4 * d * d + 2 * d * d_ff) + 4 * d * seq_len
    return 3 * (n_layers * layer + 2 * vocab_size * d)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_flops" points=2
flops = flops_per_token(96, 32, 2, 128, 16)
weights, lookup, scores = 6 * (2 * 12_288 + 3_072), 6 * 96 * 32, 12 * 2 * 32 * 16
expect_equal(
    flops == (weights + scores) / 3,
    False,
    hint="the forward pass alone; the backward pass costs twice as much",
)
expect_equal(
    flops == weights + scores + lookup,
    False,
    hint="you count the embedding as a matrix product: it is a look-up, only the head multiplies",
)
points_for(
    [
        (
            1,
            lambda: expect_close(
                flops_per_token(96, 32, 2, 128, 0),
                weights,
                hint="without attention's scores (seq_len 0): six operations a weight that multiplies",
            ),
        ),
        (
            1,
            lambda: expect_close(
                flops - flops_per_token(96, 32, 2, 128, 0),
                scores,
                hint="what a sequence of 16 tokens adds: two products with the other tokens in each layer, "
                "and their backward passes",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_flops_hidden" points=1
# Graded with tests that you do not see: other shapes, counted by torch while a model runs.
### BEGIN HIDDEN TESTS
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode


class CountedGPT(nn.Module):
    """The model of the task."""

    def __init__(self, vocab_size, d, n_layers, d_ff):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d)
        sizes = [(d, 3 * d), (d, d), (d, d_ff), (d_ff, d)]
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in sizes) for _ in range(n_layers)
        )

    def forward(self, ids):
        """Return logits."""
        x = self.embedding(ids)
        for qkv, out, up, down in self.layers:
            q, k, v = qkv(x).chunk(3, dim=-1)
            x = x + out((q @ k.mT).softmax(-1) @ v)
            x = x + down(up(x).relu())
        return x @ self.embedding.weight.T


for vocab_size, d, n_layers, d_ff, seq_len in ((40, 16, 3, 24, 8), (200, 8, 1, 64, 32), (16, 24, 2, 96, 5)):
    ids = torch.zeros(2, seq_len, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model = CountedGPT(vocab_size, d, n_layers, d_ff)
        cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    expect_close(
        flops_per_token(vocab_size, d, n_layers, d_ff, seq_len),
        counter.get_total_flops() / ids.numel(),
        hint=f"vocab_size {vocab_size}, d {d}, {n_layers} layers, d_ff {d_ff}, seq_len {seq_len}: torch "
        "counts another number while the model runs",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. One of five claims is wrong (4 points)
# Below are five claims from papers and handbooks, as printed. Four agree with their own factors, up to
# rounding; one does not. Write an auditor that finds it, and says by which factor the printed figure is off.
#
# A claim is a dict with a `kind`, the factors, and `printed`:
#
# - `"training"`: `params`, `tokens`; printed are the operations of the run.
# - `"state"`: `params`, `copies`, `stage`, `n` as in task 2; printed are bytes.
# - `"days"`: `flops`, `device`, `n`, `mfu` (from 0 to 1).
# - `"mfu"`: `flops_per_device` (operations a second that one reaches), `device`; printed from 0 to 1.
# - `"product"`: `factors`, a list.
#
# `PEAKS` has for each device what its data sheet prints in large type, and whether that is for matrices in
# which two of four weights are zero. Training has none of those; without them the peak is half.

# %% nbgrader="locked" grade_id="peaks"
PEAKS = {  # device and format: (printed operations a second, with sparsity?)
    "A100 bf16": (624e12, True),
    "H100 SXM bf16": (1979e12, True),
    "H100 SXM fp8": (3958e12, True),
    "H100 PCIe fp8": (3026e12, True),
    "TPU v4 bf16": (275e12, False),
    "TPU v5p bf16": (459e12, False),
}
ADAM = [("weight", 2), ("gradient", 2), ("master", 4), ("moment", 4), ("moment", 4)]
CLAIMS = [
    {"kind": "training", "params": 175e9, "tokens": 300e9, "printed": 3.14e23},  # GPT-3, table D.1
    {"kind": "state", "params": 128e9, "copies": ADAM, "stage": 2, "n": 64, "printed": 284e9},  # ZeRO
    {"kind": "days", "flops": 6.3e24, "device": "TPU v5p bf16", "n": 8960, "mfu": 0.4, "printed": 44},
    {"kind": "product", "factors": [2, 8192, 4e6, 3, 80], "printed": 20.9e12},  # bytes of checkpoints
    {"kind": "mfu", "flops_per_device": 400e12, "device": "H100 SXM bf16", "printed": 0.41},  # Llama 3
]


# %% nbgrader="solution" grade_id="find_wrong_claim"
def find_wrong_claim(claims, tolerance=0.05):
    """Return (position, factor) of the claim that is off most, or None if all lie within the tolerance.

    Args:
        claims: list of dicts as above.
        tolerance: relative; a claim is wrong if its factor is above 1 + tolerance, or below 1 over that.

    The factor is printed over true, so above 1 for a figure that is too large. "Off most" treats too large
    and too small alike: a factor of 1/3 is further off than one of 2.
    """
    ### BEGIN SOLUTION

    def true_value(claim):
        kind = claim["kind"]
        if kind == "training":
            return 6 * claim["params"] * claim["tokens"]
        if kind == "state":
            return state_bytes(claim["params"], claim["copies"], claim["stage"], claim["n"])
        if kind == "product":
            return math.prod(claim["factors"])
        printed, is_sparse = PEAKS[claim["device"]]
        peak = printed / 2 if is_sparse else printed
        if kind == "mfu":
            return claim["flops_per_device"] / peak
        return claim["flops"] / (claim["n"] * peak * claim["mfu"]) / 86400

    factors = [claim["printed"] / true_value(claim) for claim in claims]
    if not factors:
        return None
    worst = max(range(len(factors)), key=lambda i: abs(math.log(factors[i])))
    return (worst, factors[worst]) if abs(math.log(factors[worst])) > math.log(1 + tolerance) else None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_wrong_claim" points=3
found = find_wrong_claim(CLAIMS)
expect_equal(found is None, False, hint="one of the five claims does not agree with its own factors")
position, factor = found
points_for(
    [
        (
            1,
            lambda: expect_equal(
                position,
                3,
                hint="multiply each claim out and divide: four quotients are 1 up to rounding. If an MFU or "
                "a number of days seems off by two, look at what the data sheet's number is for",
            ),
        ),
        (1, lambda: expect_close(factor, 4 / 3, rtol=0.01, hint="the factor is printed over true")),
        (
            1,
            lambda: expect_equal(
                find_wrong_claim([claim for claim in CLAIMS if claim["kind"] != "product"]),
                None,
                hint="without that claim none is off by more than five percent",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_wrong_claim_hidden" points=1
# Graded with tests that you do not see: other claims of the five kinds, too large and too small.
### BEGIN HIDDEN TESTS
deepseek = {"kind": "mfu", "flops_per_device": 0.217 * 1513e12, "device": "H100 SXM fp8", "printed": 0.217}
small = {"kind": "training", "params": 7e9, "tokens": 2e12, "printed": 2 * 7e9 * 2e12}  # forward only
gradients_whole = {"kind": "state", "params": 1e9, "copies": ADAM, "stage": 2, "n": 8, "printed": 5.5e9}
days = {"kind": "days", "flops": 3.8e25, "device": "H100 SXM bf16", "n": 16384, "mfu": 0.4, "printed": 34}
for claims, position, factor in (
    ([CLAIMS[0], deepseek, CLAIMS[1]], 1, 1979 / 1513),
    ([CLAIMS[2], CLAIMS[4], gradients_whole], 2, 5.5 / 3.75),
    ([days, CLAIMS[1]], 0, 34 * 86400 * 16384 * 989.5e12 * 0.4 / 3.8e25),
    ([deepseek, small], 1, 1 / 3),
):
    got = find_wrong_claim(claims)
    expect_equal(got is None, False, hint=f"one of these is wrong: {claims}")
    expect_equal(got[0], position, hint="which claim is off most; too small counts as too large does")
    expect_close(got[1], factor, rtol=1e-3, hint="by which factor it is off, printed over true")
expect_equal(find_wrong_claim(CLAIMS, 0.5), None, hint="all five are within fifty percent")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. The run that the budget pays for (3 points)
# You have n devices for some days. Which model do you train? State, divided by ZeRO-3 over all n devices,
# must leave at least a quarter of each device's memory free for activations. All tokens that there is time
# for are trained on, but there are only so many in the corpus, and none is used twice. Of the models that
# fit, take the one with the least expected loss,
# $L = 1.69 + 406.4 / N^{0.34} + 410.7 / D^{0.28}$ (Hoffmann et al. 2022, equation 10).


# %% nbgrader="solution" grade_id="choose_run"
def choose_run(sizes, n, days, flops_per_second, memory_bytes, bytes_per_param, corpus_tokens):
    """Return (N, D) of the best run, or None if no model fits.

    Args:
        sizes: numbers of parameters that you may choose from.
        n: devices.
        days: that you have them.
        flops_per_second: of the model's operations that one device reaches (its peak times the MFU).
        memory_bytes: of one device.
        bytes_per_param: all copies together, divided over the n devices.
        corpus_tokens: tokens that there are.
    """
    ### BEGIN SOLUTION
    best = None
    for size in sizes:
        if size * bytes_per_param / n > 0.75 * memory_bytes:
            continue
        tokens = min(corpus_tokens, n * flops_per_second * days * 86400 / (6 * size))
        loss = 1.69 + 406.4 / size**0.34 + 410.7 / tokens**0.28
        if best is None or loss < best[0]:
            best = loss, size, tokens
    return None if best is None else best[1:]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_choose_run" points=2
sizes = [1e9, 3e9, 10e9, 30e9, 100e9]
plenty = choose_run(sizes, 64, 30, 4e14, 80e9, 16, 1e15)
points_for(
    [
        (
            0.5,
            lambda: expect_close(
                plenty,
                (10e9, 64 * 4e14 * 30 * 86400 / (6 * 10e9)),
                hint="64 devices, 30 days, memory and corpus enough: 6ND operations, and the least loss",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                choose_run(sizes, 64, 30, 4e14, 3e9, 16, 1e15)[0],
                3e9,
                hint="devices of 3 GB: three quarters of 64 of them hold the state of 9 billion parameters",
            ),
        ),
        (
            0.5,
            lambda: expect_close(
                choose_run(sizes, 64, 30, 4e14, 80e9, 16, 5e10),
                (100e9, 5e10),
                hint="a corpus of 5e10 tokens: a small model runs out of it long before the time is up",
            ),
        ),
        (
            0.5,
            lambda: (
                expect_equal(
                    choose_run([1e12], 8, 30, 4e14, 80e9, 16, 1e15), None, hint="a model that fits nowhere"
                ),
                expect_close(
                    choose_run([1e12, 1e9], 8, 30, 4e14, 80e9, 16, 1e15)[0],
                    1e9,
                    hint="of two models one fits nowhere, the other does",
                ),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_choose_run_hidden" points=1
# Graded with tests that you do not see: other budgets, against a search over everything.
### BEGIN HIDDEN TESTS
sizes, generator = [1e9, 3e9, 10e9, 30e9, 100e9], torch.Generator().manual_seed(2027)
for _ in range(30):
    u = torch.rand(5, generator=generator).tolist()
    n, days, memory = 2 ** int(1 + 8 * u[0]), 1 + 60 * u[1], (8 + 72 * u[2]) * 1e9
    corpus, each = 10 ** (9 + 4 * u[3]), 10 + 10 * u[4]
    fits = [s for s in sizes if s * each <= 0.75 * memory * n]
    runs = [(s, min(corpus, n * 3e14 * days * 86400 / 6 / s)) for s in fits]
    want = min(runs, key=lambda r: 406.4 * r[0] ** -0.34 + 410.7 * r[1] ** -0.28) if runs else None
    got = choose_run(sizes, n, days, 3e14, memory, each, corpus)
    hint = f"{n} devices of {memory / 1e9:.0f} GB, {days:.0f} days, {each:.0f} bytes, {corpus:.1e} tokens"
    if want is None:
        expect_equal(got, None, hint=hint)
    else:
        expect_close(got, want, hint=hint)
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=3
# ## A question (3 points, read by a person)
# A start-up writes: "Our 13-billion-parameter model needs 26 GB, so one 80 GB card trains it with room to
# spare. On 64 cards with 400 Gb/s each we will process 64 times the tokens, at 60 % of the 1,979 TFLOP/s that
# the data sheet promises, and finish two trillion tokens in under three weeks." Name what is wrong, put
# numbers to it, and say what you would tell them to do. About eight sentences.
#
# ### BEGIN SOLUTION
# **Model answer.** 26 GB is one copy, the weights in 16 bits. With Adam in mixed precision there are 16 to
# 20 bytes a parameter, 208 to 260 GB before any activation: one 80 GB card cannot take a step, and at least
# four to six must share the state (ZeRO-3 or tensor parallelism); on 64 cards it is 3 to 4 GB each. 1,979 is
# for sparse matrices; dense bf16 has 989, of which published runs reach 35 to 45 %, about 400 TFLOP/s. The
# run costs 6 x 13e9 x 2e12 = 1.56e23 operations, and 64 x 4e14 a second make it in 6.1e6 s, 70 days, where
# their figure gives 1.56e23 / (64 x 1.19e15) = 24 days, more than three weeks even so. 64 times the tokens
# holds only if each card has enough tokens a step: with 50 GB/s and 400 TFLOP/s about 5,300, which the
# global batch must allow. I would tell them to list the copies, measure tokens a second on eight cards,
# and ask for three times as many card-hours, or train fewer parameters.
#
# **Rubric.** 1 point: memory by copies (16 to 20 bytes a parameter, more than 200 GB), and that it must be
# divided. 1 point: sparse against dense peak and a realistic MFU, with the time computed from 6ND (60 to 80
# days). 1 point: a condition for scaling to 64 cards (tokens a card, network), or a measurement that would
# settle it before the money is spent. Half points are fine.
# ### END SOLUTION
