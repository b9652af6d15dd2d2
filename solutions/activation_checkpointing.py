# ---
# coursekit:
#   title: Activation checkpointing
#   forbidden:
#     - torch.utils.checkpoint
#     - coursekit.train
#     - coursekit.plan
#     - coursekit.formulas
# ---

# %% [markdown]
# # Activation checkpointing
#
# Five functions to write and a question to answer, 20 points, about 75 minutes. The chapter *Activation
# checkpointing* has what you need for the first half. The second half it does not show: a recomputation for
# layers that draw from a generator of their own, an instrument that finds the layer that keeps too much,
# and the best placement of checkpoints on uneven layers, which torch leaves to you.

# %% nbgrader="locked" grade_id="setup"
import numpy as np
import torch
from coursekit.notebooks import expect_close, expect_equal, points_for, probe
from torch import nn
from torch.nn import functional as F

# %% [markdown]
# ## 1. Count a layer of today (3 points)
#
# The chapter counts GPT-3's layer. This one is Llama's: RMSNorm, no dropout, no biases, fewer key and value
# heads than query heads, rotary positions, SwiGLU:
#
#     y = norm1(x)
#     q, k, v = turn(Wq y), turn(Wk y), Wv y            # q has h heads; k and v have g, shared, not copied
#     x = x + Wo attention(q, k, v)
#     y = norm2(x)
#     x = x + Wdown (silu(Wgate y) * (Wup y))
#
# Every number has 2 bytes. Some facts about single operations:
#
# - A norm (fused) keeps its input. A product with a weight keeps its input; weights are not counted.
# - `turn` keeps nothing that counts, and the product of attention needs q and k after the turn.
# - Attention with *stored* scores keeps q, k, v and the softmax's output (t numbers for each query head and
#   token). *Fused* attention keeps q, k, v, its own output, and one number of 4 bytes for each query head
#   and token.
# - `silu` keeps its input, a product of two tensors number by number keeps both.
# - A tensor that two operations need is there once.


# %% nbgrader="solution" grade_id="layer_bytes"
def layer_bytes(num_tokens, t, d, h, g, d_ff, attention, keep):
    """Return the bytes that the layer keeps for its backward pass, an int.

    num_tokens: tokens in all (sequences times t). t: tokens of a sequence.
    d: width. h, g: query heads; key and value heads, each of d / h numbers. d_ff: width inside SwiGLU.
    attention: "stored" or "fused".
    keep: "all"; "input", the layer's input alone; or "products": the layer's input and the output of every
        matrix product. The products are those with the seven weights and attention's: with stored scores
        there are two, Q K^T (its t numbers for each head and token are kept before the softmax) and the one
        with V; with fused attention the kernel counts as one, and what it keeps besides q, k and v is kept.
    """
    ### BEGIN SOLUTION
    if keep == "input":
        return 2 * num_tokens * d
    qkv = d + 2 * d * g // h
    scores = 2 * h * t if attention == "stored" else 4 * h
    if keep == "products":  # input, qkv, attention's output, Wo's, gate and up, down's
        return num_tokens * (2 * (d + qkv + d + d + 2 * d_ff + d) + scores)
    # x and y twice, qkv, attention's output, inside SwiGLU: gate, silu(gate), up, their product
    return num_tokens * (2 * (4 * d + qkv + d + 4 * d_ff) + scores)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_layer_bytes" points=2
# 1 token, width 8, 4 query heads (of 2 numbers), 2 key and value heads, 10 inside.
points_for(
    [
        (
            1,
            lambda: (
                expect_equal(
                    layer_bytes(1, 3, 8, 4, 2, 10, "fused", "all"),
                    2 * (8 + 8 + 8 + 4 + 4 + 8 + 8 + 8 + 40) + 16,
                    hint="in numbers: x 8, y 8, q 8, k 4, v 4, attention's output 8, x 8, y 8, 40 inside "
                    "SwiGLU; and 4 heads with a number of 4 bytes",
                ),
                expect_equal(
                    layer_bytes(6, 3, 8, 4, 4, 10, "fused", "all"),
                    6 * (2 * 104 + 16),
                    hint="6 tokens, and 4 key and value heads: k and v have 8 numbers each",
                ),
            ),
        ),
        (
            0.5,
            lambda: expect_equal(
                layer_bytes(1, 3, 8, 4, 2, 10, "stored", "all"),
                2 * (96 + 4 * 3),
                hint="stored scores: 4 query heads with 3 numbers each in place of the 4-byte ones",
            ),
        ),
        (
            0.5,
            lambda: (
                expect_equal(
                    layer_bytes(5, 3, 8, 4, 2, 10, "fused", "input"), 80, hint="only the layer's input"
                ),
                expect_equal(
                    layer_bytes(5, 3, 8, 4, 2, 10, "fused", "all") > 80, True, hint='"all" is more than that'
                ),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_layer_bytes_hidden" points=1
# Graded with tests that you do not see: Llama's own numbers, and keep="products".
### BEGIN HIDDEN TESTS
copies = layer_bytes(32768, 32768, 4096, 32, 8, 14336, "fused", "all") / (2 * 32768 * 4096)
expect_close(copies, 20.5 + 4 * 32 / (2 * 4096), hint="copies of the hidden states in Llama 3 8B's layer")
expect_equal(
    layer_bytes(1, 3, 8, 4, 2, 10, "fused", "products"),
    2 * (8 + 8 + 4 + 4 + 8 + 8 + 10 + 10 + 8) + 16,
    hint="products, fused: x, q, k, v, attention's output, Wo's output, gate, up, down's output",
)
expect_equal(
    layer_bytes(2, 3, 8, 4, 1, 10, "stored", "products"),
    2 * 2 * (8 + 8 + 2 + 2 + 12 + 8 + 8 + 10 + 10 + 8),
    hint="products, stored, one shared head: x, q, k, v, scores, with V, Wo's, gate, up, down's output",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Recompute with a generator of its own (5 points)
#
# `torch.utils.checkpoint` restores torch's global generators and no other. Your layers draw from a
# `torch.Generator` that is handed to them, as in `noisy` below. Write `recompute`, with
# `torch.autograd.Function` or with `torch.autograd.graph.saved_tensors_hooks`, whichever you like.
#
# The chapter's `Recompute` adds to the weights' gradients by itself. Therefore `torch.autograd.grad` cannot
# use it. Yours gets the weights as arguments and returns gradients for them, as autograd expects.


# %%
def noisy(generator, x, weight):
    """An example of a layer: dropout of one half, then a product and a tanh."""
    mask = torch.rand(x.shape, generator=generator, dtype=x.dtype) < 0.5
    return torch.tanh((x * mask * 2) @ weight)


# %% nbgrader="solution" grade_id="recompute"
def recompute(function, generator, *tensors):
    """Return `function(generator, *tensors)`, a tensor; keep only `tensors` and a state for backward.

    - Backward computes the function once more, with the random numbers of the first time.
    - Gradients go to those tensors that require one; the others may be anything that needs none.
    - What the generator gives next is the same as if nothing had been recomputed, whenever backward runs.
    - `backward()` and `torch.autograd.grad` both work; several layers may be in a row.

    function: takes the generator and the tensors; uses no other tensor that requires a gradient.
    """
    ### BEGIN SOLUTION
    return _Again.apply(function, generator, *tensors)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, generator, *tensors):
        ctx.function, ctx.generator, ctx.state = function, generator, generator.get_state()
        ctx.save_for_backward(*tensors)
        return function(generator, *tensors)

    @staticmethod
    def backward(ctx, grad_output):
        needed = ctx.needs_input_grad[2:]
        tensors = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed, strict=True)]
        state_now = ctx.generator.get_state()
        ctx.generator.set_state(ctx.state)
        with torch.enable_grad():
            output = ctx.function(ctx.generator, *tensors)
        ctx.generator.set_state(state_now)
        wanted = [t for t in tensors if t.requires_grad]
        gradients = iter(torch.autograd.grad(output, wanted, grad_output))
        return None, None, *(next(gradients) if n else None for n in needed)

    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_recompute" points=3
def two_layers(x, weights, drop):
    """Gradients, bytes kept beside the weights, and the generator's next number."""

    def layer(generator, x, weight):
        mask = torch.rand(x.shape, generator=generator, dtype=x.dtype) >= drop
        return torch.tanh((x * mask).sin() @ weight).exp()

    leaves = [w.clone().requires_grad_() for w in weights]
    generator, kept = torch.Generator().manual_seed(5), {}

    def note(tensor):
        if tensor.is_floating_point():  # the state of a generator is bytes
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for weight in leaves:
            x = recompute(layer, generator, x, weight)
    ours = {w.untyped_storage().data_ptr() for w in leaves}
    kept_bytes = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in ours)
    x.sum().backward()
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in leaves]
    return gradients, kept_bytes, torch.rand(3, generator=generator, dtype=torch.float64)


def expected(x, weights, drop):
    """The chain rule by hand: y = exp(tanh(sin(x m) W))."""
    generator, steps = torch.Generator().manual_seed(5), []
    for weight in weights:
        mask = torch.rand(x.shape, generator=generator, dtype=x.dtype) >= drop
        inside = torch.tanh((x * mask).sin() @ weight)
        steps.append((x, mask, inside, weight))
        x = inside.exp()
    gradients, incoming = [], torch.ones_like(x)
    for x, mask, inside, weight in reversed(steps):
        before_tanh = incoming * inside.exp() * (1 - inside**2)
        gradients.insert(0, (x * mask).sin().T @ before_tanh)
        incoming = before_tanh @ weight.T * (x * mask).cos() * mask
    return gradients, torch.rand(3, generator=generator, dtype=torch.float64)


generator = torch.Generator().manual_seed(2)
x = torch.randn(6, 4, dtype=torch.float64, generator=generator)
weights = [torch.randn(4, 4, dtype=torch.float64, generator=generator) for _ in range(2)]


def expect_small_and_right(drop, hint):
    """Right gradients from a recomputation: what is kept is the two inputs and no more."""
    gradients, kept_bytes, _ = probe(two_layers, x, weights, drop)
    expect_close(gradients, expected(x, weights, drop)[0], rtol=1e-10, hint=hint)
    expect_equal(
        kept_bytes <= 2 * 192,
        True,
        hint=f"gradients are right; two layers may keep inputs of 192 bytes each, and keep {kept_bytes}",
    )


def expect_generator():
    """The next numbers, of a run whose gradients are right."""
    gradients, kept_bytes, numbers = probe(two_layers, x, weights, 0.4)
    want_gradients, want_numbers = expected(x, weights, 0.4)
    expect_close(gradients, want_gradients, rtol=1e-10, hint="first the gradients, then the generator")
    expect_equal(kept_bytes <= 2 * 192, True, hint=f"two layers keep {kept_bytes} bytes, not 384")
    expect_close(numbers, want_numbers, hint="after backward the generator gives other numbers than it would")


points_for(
    [
        (1, lambda: expect_small_and_right(0.0, "two layers, no randomness: the gradient of each weight")),
        (
            1,
            lambda: expect_small_and_right(
                0.4, "two layers with dropout: are the masks of the second run those of the first?"
            ),
        ),
        (1, expect_generator),
    ]
)


# %% nbgrader="tests" grade_id="test_recompute_hidden" points=2
# Graded with tests that you do not see: frozen tensors, torch.autograd.grad, several steps, one generator.
### BEGIN HIDDEN TESTS
def frozen(x, weight, scale):
    """Gradients by autograd.grad of one layer whose input and scale are frozen; p.grad afterwards."""
    import gc
    import weakref

    class Mark:
        """Lives as long as a graph of the layer does, whichever way its tensors are kept."""

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark = Mark()
            graphs.add(ctx.mark)
            return x.clone()

        @staticmethod
        def backward(ctx, of_the_clone):
            return of_the_clone

    def layer(generator, x, weight, scale):
        masked = x * torch.rand(x.shape, generator=generator, dtype=x.dtype)
        return Marked.apply(masked @ weight).sin() * scale

    graphs = weakref.WeakSet()
    weight = weight.detach().clone().requires_grad_()
    generator, kept = torch.Generator().manual_seed(8), {}

    def note(tensor):
        if tensor.is_floating_point():  # the state of a generator is bytes
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = recompute(layer, generator, x, weight, scale)
    gc.collect()
    num_graphs = len(graphs)
    (gradient,) = torch.autograd.grad(output.sum(), [weight])
    given = {tensor.untyped_storage().data_ptr() for tensor in (x, weight, scale)}
    return gradient, weight.grad is None, len(set(kept) - given), num_graphs


def trained(x, weights):
    """Weights after three steps of SGD with one generator; tensors that were kept beside them in a step."""
    import gc
    import weakref

    class Mark:
        """Lives as long as a graph of the layer does, whichever way its tensors are kept."""

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark = Mark()
            graphs.add(ctx.mark)
            return x.clone()

        @staticmethod
        def backward(ctx, of_the_clone):
            return of_the_clone

    def layer(generator, x, weight):
        mask = torch.rand(x.shape, generator=generator, dtype=x.dtype) < 0.7
        return torch.tanh(Marked.apply(x * mask) @ weight)

    graphs = weakref.WeakSet()
    leaves = [w.clone().requires_grad_() for w in weights]
    ours = {w.untyped_storage().data_ptr() for w in leaves}
    generator = torch.Generator().manual_seed(9)

    def note(tensor):
        if tensor.is_floating_point():
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    for _ in range(3):
        y, kept = x, {}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            for weight in leaves:
                y = recompute(layer, generator, y, weight)
        gc.collect()
        num_graphs = len(graphs)
        gradients = torch.autograd.grad(y.square().sum(), leaves)
        with torch.no_grad():
            for weight, gradient in zip(leaves, gradients, strict=True):
                weight -= 0.1 * gradient
    return [w.detach() for w in leaves], len(set(kept) - ours), num_graphs


def trained_by_hand(x, weights):
    generator, weights = torch.Generator().manual_seed(9), [w.clone() for w in weights]
    for _ in range(3):
        y, steps = x, []
        for weight in weights:
            masked = y * (torch.rand(y.shape, generator=generator, dtype=y.dtype) < 0.7)
            scale = (masked != 0).to(y.dtype)
            y = torch.tanh(masked @ weight)
            steps.append((masked, scale, y))
        incoming = 2 * y
        for index in reversed(range(len(weights))):
            masked, scale, y = steps[index]
            before = incoming * (1 - y**2)
            incoming = before @ weights[index].T * scale
            weights[index] = weights[index] - 0.1 * masked.T @ before
    return weights


hidden_draws = torch.Generator().manual_seed(3)
x = torch.randn(5, 3, dtype=torch.float64, generator=hidden_draws)
weight = torch.randn(3, 3, dtype=torch.float64, generator=hidden_draws)
scale = torch.tensor([[2, -1, 3]])  # whole numbers: they can require no gradient
noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(8), dtype=x.dtype)
want = (x * noise).T @ (((x * noise) @ weight).cos() * scale)
weights = [torch.randn(3, 3, dtype=torch.float64, generator=hidden_draws) for _ in range(3)]


def expect_frozen():
    """A gradient for the weight alone, returned and not added."""
    gradient, untouched, num_kept, num_graphs = probe(frozen, x, weight, scale)
    expect_close(
        gradient, want, rtol=1e-10, hint="an input and a scale that need none: autograd.grad for the weight"
    )
    expect_equal(untouched, True, hint="autograd.grad must not add to p.grad")
    expect_equal(num_kept, 0, hint="tensors that the layer keeps beside the three that it is given")
    expect_equal(num_graphs, 0, hint="a graph of the layer lives on after the forward pass")


def expect_trained():
    """The weights of a plain run, from three inputs kept a step."""
    after, num_kept, num_graphs = probe(trained, x, weights)
    hint = "three layers, three steps, one generator: the weights differ from those of a plain run"
    expect_close(after, trained_by_hand(x, weights), rtol=1e-9, hint=hint)
    expect_equal(num_kept <= 3, True, hint=f"three layers keep three inputs, and not {num_kept} tensors")
    expect_equal(num_graphs, 0, hint="graphs of the layers that live on after the forward pass")


points_for(
    [
        (1, expect_frozen),
        (1, expect_trained),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Which layer keeps too much? (2 points)
#
# A model of ten equal layers keeps more than ten times one layer. Write the instrument that says where:
# bytes kept, layer by layer. Autograd hands each tensor that it keeps to the first function of
# `torch.autograd.graph.saved_tensors_hooks(pack, unpack)`. A tensor is a view of a *storage*
# (`tensor.untyped_storage()`, with `.nbytes()` and `.data_ptr()`), and two tensors may share one.


# %% nbgrader="solution" grade_id="kept_by_layer"
def kept_by_layer(layers, x):
    """Return a list: for each layer, the bytes of the storages that it keeps and no earlier layer does.

    layers: modules, run one after the other on x. The storages of their parameters do not count. x counts,
        in the first layer that keeps it.
    """
    ### BEGIN SOLUTION
    parameters = {p.untyped_storage().data_ptr() for layer in layers for p in layer.parameters()}
    kept, result = {}, []

    def pack(tensor):
        # Kept alive: the address of a storage that is gone may be given to another.
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for layer in layers:
            before = set(kept)
            x = layer(x)
            new = set(kept) - before - parameters
            result.append(sum(kept[key].untyped_storage().nbytes() for key in new))
    return result
    ### END SOLUTION


# %%
# A colleague's layers. When your function works: which of the six keeps more than the others, and why?
class Colleagues(nn.Module):
    """One of six layers."""

    def __init__(self, index):
        super().__init__()
        self.index = index
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x):
        """Return x and what the layer adds."""
        y = self.up(x)
        if self.index == 3:
            y = y.double()  # "for numerical stability"
        return x + self.down(F.gelu(y).float())


# kept_by_layer([Colleagues(i) for i in range(6)], torch.randn(32, 16))


# %% nbgrader="tests" grade_id="test_kept_by_layer" points=1
def chain_of_three(x):
    torch.manual_seed(0)
    first, second, third = nn.Linear(8, 8), nn.Sigmoid(), nn.Sequential(nn.Linear(8, 32), nn.GELU())
    return kept_by_layer([m.double() for m in (first, second, third)], x)


got = probe(chain_of_three, torch.ones(5, 8, dtype=torch.float64))
expect_equal(
    got,
    [320, 320, 1280],
    hint="5 rows of 8-byte numbers. Linear keeps its input (320); sigmoid its output (320); the last two "
    "keep their inputs, of which the first is that output, counted already (so 1,280). Weights do not count",
)


# %% nbgrader="tests" grade_id="test_kept_by_layer_hidden" points=1
# Graded with tests that you do not see: views, a tensor kept twice in one layer, a layer that keeps a copy.
### BEGIN HIDDEN TESTS
def awkward_layers(x):
    class Square(nn.Module):
        def forward(self, x):
            return x * x  # the same tensor twice

    class Thirds(nn.Module):
        def forward(self, x):
            left, right, _ = x.sin().chunk(3, dim=1)  # views: two thirds of one storage, which stays whole
            return torch.cat([left * right, right * left, left + right], dim=1)

    class Copies(nn.Module):
        def forward(self, x):
            return x.clone().sin() + x.sin()

    x = x.clone().requires_grad_()
    return kept_by_layer([Square(), Thirds(), Copies(), nn.Identity(), Square()], x)


got = probe(awkward_layers, torch.ones(4, 6, dtype=torch.float64))
expect_equal(
    got,
    [192, 384, 384, 0, 192],
    hint="x * x keeps one storage; sin its input, and two thirds are views of one storage that stays whole; "
    "a clone is a second copy; nothing; one",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Checkpoints on uneven layers (5 points)
#
# Layers differ: an encoder's first stages are large and cheap, attention is small and dear. Each layer may
# be *kept*, or be in a *segment* of neighbouring layers that is computed again. You are given, for layer i,
#
# - `inside[i]`: bytes that it keeps if it is kept, from the forward pass until its backward pass is over;
# - `boundary[i]`: bytes of its input. A segment that starts with layer i keeps that, and nothing else, until
#   its backward pass is over. A segment may have one layer, and segments may follow each other directly;
# - `seconds[i]`: what computing it once more costs.
#
# When the backward pass comes to a segment, all its layers' insides are there in addition to what *earlier*
# layers keep and to the segment's own boundary; what later layers kept has been freed. Memory must never
# exceed the budget: not at the end of the forward pass, and not at any segment. Gradients do not count.
# Find the placement that costs least.
#
# There are up to 20 layers; trying all ways would take too long for the tests. Think about what the layers
# from i on need to know about those before i.


# %% nbgrader="solution" grade_id="place_checkpoints"
def place_checkpoints(inside, boundary, seconds, budget):
    """Return the segments of least total cost that stay within the budget; None if no placement does.

    All arguments are non-negative integers, in lists of equal length.
    Returns: list of (start, stop), in order: layers start to stop - 1 are one segment. Layers in no segment
        are kept, so [] keeps everything.
    """
    ### BEGIN SOLUTION
    n = len(inside)
    best = [{} for _ in range(n + 1)]  # best[i][held] = (cost, segments) of the first i layers
    best[0][0] = (0, [])

    def offer(stop, held, cost, segments):
        if held <= budget and (held not in best[stop] or cost < best[stop][held][0]):
            best[stop][held] = (cost, segments)

    for start in range(n):
        for held, (cost, segments) in best[start].items():
            offer(start + 1, held + inside[start], cost, segments)
            kept, again, extra = held + boundary[start], 0, 0
            for stop in range(start + 1, n + 1):
                again, extra = again + inside[stop - 1], extra + seconds[stop - 1]
                if kept + again > budget:
                    break
                offer(stop, kept, cost + extra, [*segments, (start, stop)])
    return min(best[n].values(), key=lambda found: found[0])[1] if best[n] else None
    ### END SOLUTION


# %% nbgrader="locked" grade_id="judge_placement"
def judge_placement(segments, inside, boundary, seconds):
    """Return (peak bytes, cost in seconds) of a placement; used by the tests, and you may use it too."""
    held, peak, cost, layer = 0, 0, 0, 0
    for start, stop in [*segments, (len(inside), len(inside))]:
        if not layer <= start <= stop <= len(inside) or (start == stop != len(inside)):
            raise ValueError(f"segments must be in order, apart and not empty, and are {segments}")
        held += sum(inside[layer:start])
        if start < stop:
            held += boundary[start]
            peak = max(peak, held + sum(inside[start:stop]))
            cost += sum(seconds[start:stop])
        peak, layer = max(peak, held), stop
    return peak, cost


# %% nbgrader="tests" grade_id="test_place_checkpoints" points=3
# The least cost by trying everything, in the test's own words.
def cheapest(inside, boundary, seconds, budget, layer=0, held=0):
    """Least cost of the layers from `layer` on, if the ones before hold `held` bytes; None if impossible."""
    if layer == len(inside):
        return 0 if held <= budget else None
    costs = []
    if held + inside[layer] <= budget:
        costs.append((0, cheapest(inside, boundary, seconds, budget, layer + 1, held + inside[layer])))
    for stop in range(layer + 1, len(inside) + 1):
        if held + boundary[layer] + sum(inside[layer:stop]) <= budget:
            rest = cheapest(inside, boundary, seconds, budget, stop, held + boundary[layer])
            costs.append((sum(seconds[layer:stop]), rest))
    return min((a + b for a, b in costs if b is not None), default=None)


def expect_placement(inside, boundary, seconds, budget, hint):
    """Within the budget, and no dearer than the cheapest."""
    got = place_checkpoints(list(inside), list(boundary), list(seconds), budget)
    want = cheapest(inside, boundary, seconds, budget)
    expect_equal(got is None, want is None, hint=f"{hint}: is there a placement? (True means None)")
    if want is not None:
        peak, cost = judge_placement([tuple(s) for s in got], inside, boundary, seconds)
        expect_equal(peak <= budget, True, hint=f"{hint}: {got} needs {peak} bytes, the budget is {budget}")
        expect_equal(cost, want, hint=f"{hint}: seconds that {got} costs, against the least possible")


points_for(
    [
        (
            1,
            lambda: expect_placement([10] * 4, [1] * 4, [1] * 4, 24, "four equal layers of 10, budget 24"),
        ),
        (
            1,
            lambda: expect_placement(
                [30, 8, 28, 25],
                [2, 2, 2, 2],
                [9, 1, 4, 3],
                75,
                "uneven layers: what is there at each moment?",
            ),
        ),
        (
            0.5,
            lambda: expect_placement(
                [3, 3, 3, 3, 3, 3], [3, 3, 3, 3, 3, 3], [1] * 6, 12, "thin layers: longer segments keep less"
            ),
        ),
        (
            0.5,
            lambda: (
                expect_placement([10, 20], [1, 1], [1, 1], 20, "20 and an input do not fit into 20"),
                expect_placement([10, 20], [1, 1], [1, 1], 21, "20 and an input fit into 21"),
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_place_checkpoints_hidden" points=2
# Graded with tests that you do not see: random layers, up to 20 of them.
### BEGIN HIDDEN TESTS
from functools import cache


def least_cost(inside, boundary, seconds, budget):
    """The same question, answered from the end: what layers from i on cost, given what is held before."""
    n = len(inside)

    @cache
    def rest(layer, held):
        if held > budget:
            return float("inf")
        if layer == n:
            return 0
        best, again, extra = rest(layer + 1, held + inside[layer]), 0, 0
        for stop in range(layer + 1, n + 1):
            again, extra = again + inside[stop - 1], extra + seconds[stop - 1]
            if held + boundary[layer] + again <= budget:
                best = min(best, extra + rest(stop, held + boundary[layer]))
        return best

    return rest(0, 0)


def play(segments, inside, boundary, seconds, budget):
    """Walk forward through the layers; return the cost, or infinity if the budget is exceeded."""
    starts, layer, held, cost = {int(start): int(stop) for start, stop in segments}, 0, 0, 0
    while layer < len(inside):
        stop = starts.pop(layer, None)
        if stop is None:
            held, layer = held + inside[layer], layer + 1
        else:
            held, cost = held + boundary[layer], cost + sum(seconds[layer:stop])
            if held + sum(inside[layer:stop]) > budget or stop <= layer:
                return float("inf")
            layer = stop
    return cost if held <= budget and not starts else float("inf")


rng = np.random.default_rng(4)
for n in (5, 8, 8, 12, 20):
    inside, boundary, seconds = (
        rng.integers(low, high, n).tolist() for low, high in ((5, 30), (1, 6), (1, 9))
    )
    for share in (0.35, 0.6, 0.85):
        budget = int(share * sum(inside))
        got, want = place_checkpoints(inside[:], boundary[:], seconds[:], budget), None
        want = least_cost(tuple(inside), tuple(boundary), tuple(seconds), budget)
        cost = float("inf") if got is None else play(got, inside, boundary, seconds, budget)
        expect_equal(
            cost,
            want,
            hint=f"{n} layers, budget {budget} of {sum(inside)}: cost (inf: none, or over the budget); "
            "it should be the least possible",
        )
### END HIDDEN TESTS

# %% [markdown]
# ## 5. What the second run costs (2 points)
#
# A product of F operations takes 2F in the backward pass. A segment that is computed again runs a second
# time, *until the last tensor that backward needs is there*. A product needs its input; what comes after
# the products here (a norm, GELU) keeps its input as well, and is free. A sum keeps nothing.


# %% nbgrader="solution" grade_id="step_ratio"
def step_ratio(layers, segments):
    """Return the operations of a step with these segments computed again, over those of a step without.

    layers: for each layer the list of its operations, in order: an int is a product of so many operations,
        "keeps" an operation that keeps its input and is free. Sums are not listed.
    segments: list of (start, stop): layers start to stop - 1 are computed again together.
    """
    ### BEGIN SOLUTION
    once = 3 * sum(op for layer in layers for op in layer if op != "keeps")
    again = 0
    for start, stop in segments:
        operations = [op for layer in layers[start:stop] for op in layer]
        # The last one keeps its input: it need not run itself, everything before it does.
        again += sum(op for op in operations[:-1] if op != "keeps")
    return (once + again) / once
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_step_ratio" points=1
mlp = [8, "keeps", 8]
expect_close(step_ratio([mlp], []), 1, hint="nothing computed again")
expect_close(step_ratio([mlp], [(0, 1)]), 56 / 48, hint="up, GELU, down: nobody needs the output of down")
expect_close(
    step_ratio([mlp, mlp], [(0, 2)]),
    120 / 96,
    hint="one segment of two layers: which products are needed again?",
)

# %% nbgrader="tests" grade_id="test_step_ratio_hidden" points=1
# Graded with tests that you do not see: segments that end with another operation, or have no product at all.
### BEGIN HIDDEN TESTS
layers = [[6, 2, "keeps"], ["keeps"], [4, "keeps", 12], ["keeps", 5]]
for segments, again in (
    ([(0, 1)], 8),
    ([(1, 2)], 0),
    ([(0, 2)], 8),
    ([(0, 3)], 12),
    ([(0, 1), (2, 4)], 8 + 16),
    ([(0, 1), (1, 2), (2, 3), (3, 4)], 8 + 0 + 4 + 0),
):
    expect_close(
        step_ratio([list(layer) for layer in layers], segments),
        (87 + again) / 87,
        hint=f"layers {layers}, segments {segments}",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Explain a measurement (3 points)
#
# Llama 3.1 8B (32 layers, width 4,096, vocabulary 128,256) is trained in bfloat16 on one sequence of 32,768
# tokens. Every layer keeps 28 copies of the hidden states, so 224 GiB became 8 GiB by checkpointing each
# layer: that is in print. A team does this. Their loss is a fused kernel in float32: it leaves one tensor as
# large as the logits for its backward pass, which makes a second. Their profiler says: beside weights,
# gradients and optimizer state, the peak is **39 GiB**. They propose to put a checkpoint into the middle of
# each layer as well.
#
# Write five to ten sentences. Where do 39 GiB come from, in numbers, and at which moment of the step? What
# would the proposal change? What would you propose? And, from task 3: which of the colleague's layers keeps
# how many bytes more than the others, and why?

# %% [markdown] nbgrader="answer" grade_id="explain" points=3
# Your answer here.
#
# ### BEGIN SOLUTION
# **Model answer.** The hidden states are 32,768 x 4,096 x 2 bytes = 0.25 GiB, 32 of them are the 8 GiB. The
# logits are 32,768 x 128,256 numbers; in float32 15.7 GiB. At the start of the backward pass what the loss
# left of them and their gradient of the same size are there together: 31.3 GiB. (torch's own cross_entropy
# would have three such tensors, 47 GiB, and the peak would be 55.)
# 8 + 31.3 = 39.3 GiB. The peak is therefore at the loss, before any layer is computed again. Later, when
# logits are gone, 8 + 7 = 15 GiB are enough for a layer. A checkpoint inside the layers makes those 15 GiB
# smaller and leaves the peak what it is. What helps: compute the loss in pieces of the sequence, each with
# its backward pass (a fused or chunked cross-entropy), so that only one piece's logits exist; or logits in
# bfloat16; or a split of the vocabulary over devices.
# Task 3: layer 3 keeps GELU's input as float64, 32 x 64 x 8 = 16,384 bytes in place of 8,192; its output is
# cast back to float32 for `down` as everywhere. So 8,192 bytes more: a cast is a copy, and what is kept is
# the copy.
#
# **Rubric.** 1 point: logits and their gradient, float32, 15.7 GiB each (half a point for the logits once).
# 0.5 points: the moment is the start of backward, at the loss, and the layers' own peak is about 15 GiB.
# 0.5 points: the proposal does not lower the peak, *and* a remedy that acts on the logits.
# 1 point: layer 3, 8,192 bytes (half a point), because the cast makes a copy of twice the size that GELU
# keeps (half a point).
# ### END SOLUTION
