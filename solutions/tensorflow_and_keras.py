# ---
# coursekit:
#   title: TensorFlow and Keras
#   forbidden: [coursekit.tf, keras.utils.image_dataset_from_directory, tensorflow.compat.v1]
# ---

# %% [markdown]
# # TensorFlow and Keras
#
# You will run a graph as a session does, predict traces, repair an input pipeline, predict its time,
# write the training step that Keras would have written, and export a model that takes what a server is
# sent. 20 points, about an hour. Every task is a function of plain numbers, lists and numpy arrays; what
# happens inside is yours.
#
# Run the cells from top to bottom. A test cell that fails says in a sentence what it expected and what it
# got.

# %% nbgrader="locked" grade_id="setup"
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

from coursekit.notebooks import expect_close, expect_equal, points_for, probe

tf.get_logger().setLevel("ERROR")

# %% [markdown]
# ## 1. A session (3 points)
#
# A graph is a dict `{name: [operation, [input names]]}`. The operations are `"MatMul"`, `"AddV2"`,
# `"Relu"` and `"Mean"` (over all elements). A `"Placeholder"` has no inputs and must be fed. Write what
# `Session.run` does: compute the node that is asked for, run no operation that it does not need, run each
# operation once however many nodes use its result, and let a fed value stand in for *any* node.
#
# The chapter's interpreter is not enough: a node that two others use would run twice, and in a deep graph a
# million times.


# %% nbgrader="solution" grade_id="session_run"
def session_run(graph, name, fed):
    """Return (value of the node `name`, list of the names whose operation ran, in the order of running).

    graph: {name: [operation, [input names]]}.    fed: {name: numpy array}.
    Raise ValueError if a placeholder is needed that was not fed.
    """
    ### BEGIN SOLUTION
    operations = {
        "MatMul": np.matmul,
        "AddV2": np.add,
        "Relu": lambda z: np.maximum(z, 0),
        "Mean": np.mean,
    }
    values, ran = dict(fed), []

    def value_of(node):
        if node not in values:
            operation, inputs = graph[node]
            if operation == "Placeholder":
                raise ValueError(f"feed {node}")
            arguments = [value_of(one) for one in inputs]
            values[node] = operations[operation](*arguments)
            ran.append(node)
        return values[node]

    return value_of(name), ran
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_session_run" points=2
LAYER = {
    "x": ["Placeholder", []],
    "W": ["Placeholder", []],
    "b": ["Placeholder", []],
    "product": ["MatMul", ["x", "W"]],
    "sum": ["AddV2", ["product", "b"]],
    "out": ["Relu", ["sum"]],
    "loss": ["Mean", ["out"]],
    "unused": ["NoSuchOperation", ["out"]],
}
TWICE = {"both": ["AddV2", ["out", "out"]]}
layer_fed = {"x": np.array([[1.0, -2.0]]), "W": np.array([[3.0, 1.0], [1.0, 2.0]]), "b": np.array([0.5, 1.0])}
points_for(
    [
        (
            1,
            lambda: (
                expect_close(
                    session_run(LAYER, "out", layer_fed)[0],
                    [[1.5, 0.0]],  # by hand: [1, -2] @ W = [1, -3]; plus b; negative parts to zero
                    hint="follow the arrows backwards from `out` by hand: which numbers meet in `product`?",
                ),
                expect_close(
                    session_run(LAYER, "loss", layer_fed)[0], 0.75, hint="the mean of the 1.5 and the 0 above"
                ),
            ),
        ),
        (
            1,
            lambda: (
                expect_equal(
                    session_run(LAYER | TWICE, "both", layer_fed)[1],
                    ["product", "sum", "out", "both"],
                    hint="`both` uses `out` twice, and nobody asked for `loss` and `unused`",
                ),
                expect_equal(
                    session_run(LAYER, "sum", layer_fed)[1],
                    ["product", "sum"],
                    hint="nobody asked for more than `sum`",
                ),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_session_run_hidden" points=1
# Graded with tests that you do not see: a deep graph, a value fed in the middle of it, a missing feed.
### BEGIN HIDDEN TESTS
DOUBLING = {"a0": ["Placeholder", []]} | {
    f"a{i}": ["AddV2", [f"a{i - 1}", f"a{i - 1}"]] for i in range(1, 13)
}
doubled, doubling_order = session_run(DOUBLING, "a12", {"a0": np.array(1.5)})
expect_close(doubled, 1.5 * 2**12, hint="twelve doublings")
expect_equal(doubling_order, [f"a{i}" for i in range(1, 13)], hint="each operation runs once: keep its value")
middle, middle_order = session_run(DOUBLING, "a5", {"a3": np.array(1.0)})
expect_equal([float(middle), middle_order], [4.0, ["a4", "a5"]], hint="a fed value stands in for any node")


def what_is_raised(graph):
    try:
        session_run(graph, "a1", {})
    except Exception as error:
        return type(error).__name__
    return "nothing"


expect_equal(probe(what_is_raised, DOUBLING), "ValueError", hint="a placeholder that is needed and not fed")
### END HIDDEN TESTS

# %% [markdown]
# ## 2. How many traces? (3 points)
#
# Predict what `tf.function` does without calling it. A call is a list of arguments; an argument is
# `["number", value]` (a Python number) or `["tensor", dtype, shape]`. For each call say whether it traces
# (1) or reuses a graph (0). Try `tf.function` itself in a cell of your own before you decide what is in
# the key: one case surprises nearly everyone.


# %% nbgrader="solution" grade_id="traces"
def traces(calls):
    """Return a list with 1 for each call that traces a new tf.function, 0 for each that does not."""
    ### BEGIN SOLUTION
    seen, verdicts = [], []
    for call in calls:
        # Lists compare their numbers with ==, as TensorFlow does: 1 == 1.0 == True.
        verdicts.append(0 if call in seen else 1)
        seen.append(call)
    return verdicts
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_traces" points=2
tensor_calls = [
    ["tensor", "float32", [2]],
    ["tensor", "float32", [2]],
    ["tensor", "float32", [3]],
    ["tensor", "int32", [2]],
]
number_calls = [["number", n] for n in (7, 8, 7, 8.0, 8.5)]
points_for(
    [
        (
            1,
            lambda: (
                expect_equal(
                    traces([[argument] for argument in tensor_calls]),
                    [1, 0, 1, 1],
                    hint="make these four tensors, call a tf.function with a print in it, and compare",
                ),
                expect_equal(
                    traces([[argument] for argument in reversed(tensor_calls)]),
                    [1, 1, 1, 0],
                    hint="the same four tensors, the last one first",
                ),
            ),
        ),
        (
            1,
            lambda: (
                expect_equal(
                    traces([[argument] for argument in number_calls]),
                    [1, 1, 0, 0, 1],
                    hint="call a tf.function with a print in it with 7, 8, 7, 8.0, 8.5, and compare",
                ),
                expect_equal(
                    traces([[argument] for argument in reversed(number_calls)]),
                    [1, 1, 1, 0, 0],
                    hint="the same five numbers, the last one first",
                ),
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_traces_hidden" points=1
# Graded with tests that you do not see, against a real tf.function: two arguments, scalars, mixed numbers.
### BEGIN HIDDEN TESTS
def real_traces(calls):
    happened = []
    function = tf.function(lambda *arguments: happened.append(1) or tf.constant(0))
    verdicts = []
    for call in calls:
        before = len(happened)
        function(*[a[1] if a[0] == "number" else tf.zeros(a[2], a[1]) for a in call])
        verdicts.append(len(happened) - before)
    return verdicts


shapes_and_flags = [
    [["tensor", "float32", [2]], ["number", True]],
    [["tensor", "float32", [2]], ["number", False]],
    [["tensor", "float32", []], ["number", True]],
    [["tensor", "float32", [1]], ["number", True]],
    [["tensor", "float32", [2]], ["number", True]],
]
mixed_numbers = [[["number", n]] for n in (2, 2.0, 0, False, 1, True, 1.0, 2.5, 2.5, -1)]
expect_equal(
    traces(shapes_and_flags),
    real_traces(shapes_and_flags),
    hint="the key holds all arguments; [] is a shape",
)
expect_equal(
    traces(mixed_numbers),
    real_traces(mixed_numbers),
    hint="ask tf.function about True and 1, and about 2 and 2.0",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The step behind `fit`, in pieces (3 points)
#
# The step's batch does not fit into memory and comes as micro-batches, not all of one size. Write one
# step of SGD for the classifier `logits = x @ weights + bias` with the mean cross-entropy over *all*
# examples of the step, one `tf.GradientTape` a micro-batch. The result must be the step that one large
# batch would have made.


# %% nbgrader="solution" grade_id="train_step"
def train_step(weights, bias, micro_batches, lr):
    """Return (new weights, new bias, mean loss in nats) after one step of SGD, as numpy float64.

    weights: (features, classes).    bias: (classes,).
    micro_batches: list of [x (n, features), y (n,) integers].
    """
    ### BEGIN SOLUTION
    kernel, offset = tf.Variable(weights), tf.Variable(bias)
    total = sum(len(y) for _, y in micro_batches)
    gradients, loss = [np.zeros_like(weights), np.zeros_like(bias)], 0.0
    for x, y in micro_batches:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, x @ kernel + offset)
            part = tf.reduce_sum(losses) / total
        loss += float(part)
        pieces = tape.gradient(part, [kernel, offset])
        gradients = [old + new.numpy() for old, new in zip(gradients, pieces, strict=True)]
    return weights - lr * gradients[0], bias - lr * gradients[1], loss
    ### END SOLUTION


# %% nbgrader="locked" grade_id="random_batch"
def random_batch(seed, size, features=4, classes=3):
    """An x and a y of `size` examples."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(size, features)), rng.integers(0, classes, size)]


# %% nbgrader="tests" grade_id="test_train_step" points=2
# Weights that are logarithms make probabilities that are fractions, so all of this can be checked by hand.
start_weights, start_bias = np.log([[2.0, 1.0, 1.0], [1.0, 1.0, 3.0]]), np.zeros(3)
unequal = [
    [np.array([[1.0, 0.0]]), np.array([0])],  # p = 1/2, 1/4, 1/4
    [np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([2, 1])],  # p = 1/5, 1/5, 3/5 and 1/3, 1/6, 1/2
]
gradient = [np.array([[-1 / 6, -7 / 12, 3 / 4], [8 / 15, -19 / 30, 1 / 10]]) / 3]
gradient.append(np.array([1 / 30, -23 / 60, 7 / 20]) / 3)
want_weights, want_bias = start_weights - 0.3 * gradient[0], start_bias - 0.3 * gradient[1]


def step_and_arguments(weights, bias, parts, lr):
    before = [weights.copy(), bias.copy()]
    result = train_step(weights, bias, parts, lr)
    untouched = bool((weights == before[0]).all() and (bias == before[1]).all())
    return [result[0], result[1], float(result[2]), untouched]


new_weights, new_bias, mean_loss, untouched = probe(
    step_and_arguments, start_weights, start_bias, unequal, 0.3
)
in_float64 = "right to five digits and no further: something was computed in float32; see the dtypes"
points_for(
    [
        (
            1,
            lambda: (
                expect_close(
                    mean_loss,
                    np.log(20) / 3,
                    rtol=1e-5,
                    hint="minus the log of 1/2, of 3/5 and of 1/6, in the mean over the three examples. "
                    "x @ weights + bias are logits, not probabilities",
                ),
                expect_close(
                    new_weights,
                    want_weights,
                    rtol=1e-5,
                    hint="the loss is right, its gradient is not; one example is alone in its micro-batch",
                ),
                expect_close(new_weights, want_weights, rtol=1e-9, hint=in_float64),
            ),
        ),
        (
            1,
            lambda: (
                expect_close(
                    new_bias,
                    want_bias,
                    rtol=1e-5,
                    hint="does the bias take the same step as the weights?",
                ),
                expect_close(new_bias, want_bias, rtol=1e-9, hint=in_float64),
                expect_equal(untouched, True, hint="the arrays that you were given have changed"),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_train_step_hidden" points=1
# Graded with tests that you do not see: random examples, other sizes; are your arguments left as they were?
### BEGIN HIDDEN TESTS
hidden_weights, hidden_bias = np.random.default_rng(7).normal(size=(4, 3)), np.array([0.1, -0.2, 0.0])
random_parts = [random_batch(3, 1), random_batch(4, 9), random_batch(5, 2)]


def closed_form(weights, bias, parts, lr):
    """The same step from the closed form of the gradient, on the joined batch."""
    x, y = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    scores = np.exp(x @ weights + bias)
    p = scores / scores.sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(p[np.arange(len(y)), y]))
    p[np.arange(len(y)), y] -= 1
    return [weights - lr * x.T @ p / len(y), bias - lr * p.mean(axis=0), float(loss)]


def step_and_arguments_again(weights, bias, parts, lr):
    before = [weights.copy(), bias.copy()]
    result = train_step(weights, bias, parts, lr)
    untouched = bool((weights == before[0]).all() and (bias == before[1]).all())
    return [result[0], result[1], float(result[2]), untouched]


want = closed_form(hidden_weights, hidden_bias, random_parts, 0.2)
answer = probe(step_and_arguments_again, hidden_weights, hidden_bias, random_parts, 0.2)
for got_one, want_one in zip(answer[:3], want, strict=True):
    expect_close(got_one, want_one, rtol=1e-9, hint="every example weighs the same, whatever its micro-batch")
expect_equal(answer[3], True, hint="do not change the arrays that you are given")
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A colleague's pipeline (4 points)
#
# `decode` is expensive and always gives the same; `augment` is cheap and must be drawn anew every
# epoch. (The decoded value of `v` is `10 * v`, the augmentation adds a random digit: `value // 10` tells
# you which example it was, `value % 10` how it was augmented.) A colleague wrote the cell below. It
# runs, the accuracy is disappointing. Find what is wrong with it, and write `epochs` so that
#
# - every epoch holds every example exactly once, in a new order, with its batches put together anew;
# - the examples, which come sorted by class, are mixed over the whole data set;
# - each example is decoded once in the life of the pipeline and augmented anew in every epoch.


# %% nbgrader="locked" grade_id="stages"
def decode(value):
    """Expensive, deterministic."""
    return 10 * value


def augment(value):
    """Cheap, random."""
    return value + tf.random.uniform([], 0, 10, dtype=tf.int64)


def colleagues_epochs(values, batch_size, num_epochs, seed):
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(values, dtype=np.int64))
    dataset = dataset.map(decode).map(augment).batch(batch_size).shuffle(4, seed=seed).cache()
    return [[batch.tolist() for batch in dataset.as_numpy_iterator()] for _ in range(num_epochs)]


# %%
for one_epoch in colleagues_epochs(range(12), batch_size=3, num_epochs=3, seed=0):
    print(one_epoch)


# %% nbgrader="solution" grade_id="epochs"
def epochs(values, batch_size, num_epochs, seed):
    """Return `num_epochs` epochs, each a list of batches, each a list of ints (the last may be shorter)."""
    ### BEGIN SOLUTION
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(values, dtype=np.int64))
    dataset = dataset.map(decode).cache().shuffle(len(values), seed=seed)
    dataset = dataset.map(augment).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return [[batch.tolist() for batch in dataset.as_numpy_iterator()] for _ in range(num_epochs)]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_epochs" points=3
three = epochs(list(range(60)), 4, 3, 0)
identities = [[value // 10 for batch in one for value in batch] for one in three]
groups = [{frozenset(value // 10 for value in batch) for batch in one} for one in three]
digits = [{value // 10: value % 10 for batch in one for value in batch} for one in three]


def expect_shuffled():
    """The examples do not come in turn."""
    strides = {one[i + 1] - one[i] for one in identities for i in range(len(one) - 1)}
    hint = "not shuffled: from one example to the next it is nearly always the same stride"
    expect_equal(len(strides) > 6, True, hint=hint)


points_for(
    [
        (
            1,
            lambda: (
                expect_equal([len(batch) for batch in three[0]], [4] * 15, hint="batches of batch_size"),
                expect_equal(
                    [sorted(one) for one in identities],
                    [list(range(60))] * 3,
                    hint="every example once an epoch",
                ),
                expect_equal(
                    len({tuple(one) for one in identities}), 3, hint="the epochs should come in three orders"
                ),
                expect_shuffled(),
            ),
        ),
        (
            1,
            lambda: (
                expect_shuffled(),
                expect_equal(
                    len(groups[0] & groups[1]), 0, hint="some batches of epoch 1 come again in epoch 2"
                ),
                expect_equal(
                    max(one[i] for one in identities for i in range(4)) >= 20,
                    True,
                    hint="the first batches hold only the first classes; how far does an example travel?",
                ),
            ),
        ),
        (
            1,
            lambda: (
                expect_equal(
                    len(set(digits[0].values())) >= 5,
                    True,
                    hint="sixty examples were given nearly the same random digit; where is it drawn?",
                ),
                expect_equal(
                    digits[0] == digits[1],
                    False,
                    hint="an example is augmented in epoch 2 as it was in epoch 1",
                ),
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_epochs_hidden" points=1
# Graded with tests that you do not see: more examples, other batches; all the demands at once.
### BEGIN HIDDEN TESTS
many = epochs(list(range(200)), 8, 4, 3)
many_groups = [{frozenset(value // 10 for value in batch) for batch in one} for one in many]
first_batches = [value // 10 for one in many for value in one[0]]
digit_of = [{value // 10: value % 10 for batch in one for value in batch} for one in many]
expect_equal([len(one) for one in digit_of], [200] * 4, hint="every example once an epoch")
expect_equal([len(batch) for one in many for batch in one], [8] * 100, hint="batches of batch_size")
expect_equal(
    [len(batch) for batch in epochs([5, 6, 7], 2, 1, 0)[0]], [2, 1], hint="the last batch may be shorter"
)
expect_equal(
    len(many_groups[0] & many_groups[1]),
    0,
    hint="the same examples meet in a batch again: batch after shuffling",
)
expect_equal(
    max(first_batches) > 100, True, hint="first batches hold neighbours only: the buffer is too small"
)
expect_equal(len(set(digit_of[0].values())), 10, hint="two hundred examples should see all ten digits")
expect_equal(digit_of[0] == digit_of[1], False, hint="the augmentation was cached: one draw for all epochs")
### END HIDDEN TESTS

# %% [markdown]
# ## 5. When will the epoch end? (3 points)
#
# The chapter's formula assumes that every batch takes equally long. Here each has its own time, and
# `prefetch(buffer)` has a limit. The rules:
#
# - One loader loads the batches in order, one trainer trains on them in order. Step $i$ starts when batch
#   $i$ is loaded and step $i-1$ has ended.
# - `buffer = 0`: no prefetch. Loading batch $i$ starts when step $i-1$ has ended.
# - `buffer = m > 0`: at most `m` batches may be loaded or loading that the trainer has not taken yet. It
#   takes batch $i$ when step $i$ starts. The loader starts the next batch as soon as it is free and the
#   limit allows it.


# %% nbgrader="solution" grade_id="epoch_seconds"
def epoch_seconds(load_seconds, step_seconds, buffer):
    """Return the time in seconds from the start of the first load to the end of the last step."""
    ### BEGIN SOLUTION
    loaded, started, ended = [], [], []
    for i, (load, step) in enumerate(zip(load_seconds, step_seconds, strict=True)):
        begin = loaded[-1] if loaded else 0.0
        if buffer == 0:
            begin = ended[-1] if ended else 0.0
        elif i >= buffer:
            begin = max(begin, started[i - buffer])
        loaded.append(begin + load)
        started.append(max(loaded[-1], ended[-1] if ended else 0.0))
        ended.append(started[-1] + step)
    return ended[-1]
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_epoch_seconds" points=2
bars = "draw a row of bars for the loader and one for the trainer on squared paper"
slow_last = [1.0, 1.0, 1.0, 1.0, 9.0]
points_for(
    [
        (
            1,
            lambda: (
                expect_close(epoch_seconds([2.0] * 3, [3.0] * 3, 0), 15.0, hint="nothing overlaps here"),
                expect_close(epoch_seconds([2.0] * 3, [3.0] * 3, 1), 11.0, hint=bars),
                expect_close(epoch_seconds([3.0] * 3, [2.0] * 3, 1), 11.0, hint=bars),
            ),
        ),
        (
            1,
            lambda: (
                expect_close(
                    epoch_seconds(slow_last, [4.0] * 5, 1), 26.0, hint=f"buffer 1, last load slow: {bars}"
                ),
                expect_close(
                    epoch_seconds(slow_last, [4.0] * 5, 2), 22.0, hint=f"buffer 2, last load slow: {bars}"
                ),
                expect_close(
                    epoch_seconds(slow_last, [4.0] * 5, 9), 21.0, hint=f"buffer 9, last load slow: {bars}"
                ),
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_epoch_seconds_hidden" points=1
# Graded with tests that you do not see, against a clock that ticks: uneven times, several buffers.
### BEGIN HIDDEN TESTS
def ticking(load_ticks, step_ticks, buffer):
    """Simulate the rules tick by tick."""
    n, clock, loads_done, taken, steps_done = len(load_ticks), 0, 0, 0, 0
    loading = training = 0  # ticks left of what is running now
    while steps_done < n:
        moved = True
        while moved:  # whatever may start at this tick starts
            moved = False
            if training == 0 and taken == steps_done and loads_done > taken:
                training, taken, moved = step_ticks[taken], taken + 1, True
            free = steps_done == loads_done if buffer == 0 else loads_done - taken < buffer
            if loading == 0 and loads_done < n and free:
                loading, moved = load_ticks[loads_done], True
        clock += 1
        if loading:
            loading -= 1
            loads_done += loading == 0
        if training:
            training -= 1
            steps_done += training == 0
    return float(clock)


rng = np.random.default_rng(11)
uneven = [[rng.integers(1, 12, 9).tolist(), rng.integers(1, 12, 9).tolist()] for _ in range(6)]
uneven.append(
    [[1, 1, 1, 20, 1, 1, 1], [5] * 7]
)  # one slow file: a buffer of three hides more of it than a buffer of one


def agree(buffers):
    for load, step in uneven:
        for buffer in buffers:
            seconds = epoch_seconds([float(t) for t in load], [float(t) for t in step], buffer)
            expect_close(
                seconds, ticking(load, step, buffer), hint=f"loads {load}, steps {step}, buffer {buffer}"
            )


agree([0, 1, 2, 3, 50])
### END HIDDEN TESTS

# %% [markdown]
# ## 6. What the server is sent (2 points)
#
# A server sends pictures as they are in the files: numbers from 0 to 255, shape (n, 8, 8, 1). Your
# classifier was trained on numbers from 0 to 1, flattened. Build a Keras model with the given weights
# that takes what the server sends, for any n, and returns logits; export it as a SavedModel.


# %% nbgrader="solution" grade_id="export_model"
def export_model(weights, bias, directory):
    """Write a SavedModel into `directory` whose signature maps pictures (n, 8, 8, 1) to logits.

    weights: (64, classes) and bias: (classes,), trained on pixels / 255.
    """
    ### BEGIN SOLUTION
    dense = keras.layers.Dense(len(bias))
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), dense]
    model = keras.Sequential(layers)
    dense.set_weights([weights, bias])
    model.export(directory, verbose=False)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_export_model" points=1
def served_logits(weights, bias, pictures):
    import tempfile

    directory = tempfile.mkdtemp()
    export_model(weights, bias, directory)
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    (logits,) = serve(**{name: tf.constant(pictures, tf.float32)}).values()
    return logits.numpy()


rng = np.random.default_rng(0)
pictures = rng.integers(0, 256, (1, 8, 8, 1)).astype(float)
kernel, offset = rng.normal(size=(64, 10)), rng.normal(size=10)
served = probe(served_logits, kernel, offset, pictures)
sums_to_one = abs(float(np.sum(served)) - 1) < 1e-3
expect_close(
    served,
    pictures.reshape(1, 64) / 255 @ kernel + offset,
    rtol=1e-4,
    hint="these ten numbers sum to 1: the task asks for logits, not probabilities"
    if sums_to_one
    else "the server sends bytes as they are; what happened to the pixels before training?",
)


# %% nbgrader="tests" grade_id="test_export_model_hidden" points=1
# Graded with tests that you do not see: other classes, a larger batch.
### BEGIN HIDDEN TESTS
def served_again(weights, bias, pictures):
    import tempfile

    directory = tempfile.mkdtemp()
    export_model(weights, bias, directory)
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    (logits,) = serve(**{name: tf.constant(pictures, tf.float32)}).values()
    return logits.numpy()


rng = np.random.default_rng(1)
hidden_pictures = rng.integers(0, 256, (7, 8, 8, 1)).astype(float)
hidden_kernel, hidden_offset = rng.normal(size=(64, 3)), rng.normal(size=3)
expect_close(
    probe(served_again, hidden_kernel, hidden_offset, hidden_pictures),
    hidden_pictures.reshape(7, 64) / 255 @ hidden_kernel + hidden_offset,
    rtol=1e-4,
    hint="any number of pictures, any number of classes",
)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. A review (2 points, graded by hand)
#
# A team trains a classifier of sentences with the step in a `tf.function`. An epoch has 1,500 steps and
# takes 300 s. They measured: an epoch that only loads, without the step, takes 60 s; the step, called
# again and again on one batch that is kept in memory, takes 120 ms. "The input pipeline is the
# bottleneck," they write, "so we put a cache behind the decoding. The second epoch now takes 298 s, so
# the cache is broken." Say with numbers what is right and what is wrong in this, and name a cause of the
# missing time that agrees with all their numbers, with an experiment that would tell whether it is the
# right one. (5 to 8 sentences.)

# %% [markdown] nbgrader="answer" grade_id="review" points=2
# Your answer here.
#
# ### BEGIN SOLUTION
# The steps alone are 1,500 x 0.120 s = 180 s. Overlapped, the epoch should take max(60, 180) = 180 s;
# without any overlap 60 + 180 = 240 s. Neither is 300 s, so at least 60 s, and with overlap 120 s, are
# neither loading nor the step as they measured it. The pipeline is not the bottleneck: loading can
# explain 60 s at most. The cache is not refuted either: behind an overlapped step it has nothing to save,
# so 298 s is what a working cache would show; that an epoch which only loads got shorter would prove that
# it works. A cause: a Python number among the arguments, such as a step counter or a learning rate that
# changes. Every step then traces, in every epoch; the test on one batch passed the same number again and
# again and traced once. Experiment: print in the step's Python code and count: 1,500 prints an epoch say
# yes, one print says no. Others that agree with the numbers: longer sentences than in the kept batch
# (time the step on twenty different batches), copying batches to the accelerator, or reading the loss
# with `.numpy()` and logging in every step (run an epoch without). New shapes alone do not agree: in the
# second epoch the lengths are known, and it was no faster.
#
# Rubric: 1 point for the sums 180 and 240 (or an equal argument) and the conclusion that loading cannot
# be what is missing; half of it if the conclusion about the cache is absent. 1 point for a cause that
# agrees with all numbers and an experiment whose two outcomes differ; half of it without the experiment.
# No point for a cause that they exclude, such as slow decoding, a small buffer, or a missing prefetch:
# these cost 60 s at the most and nothing behind a cache.
# ### END SOLUTION
