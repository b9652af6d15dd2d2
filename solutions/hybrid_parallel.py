# ---
# coursekit:
#   title: Hybrid parallelism
#   forbidden:
#     - coursekit.plan
#     - coursekit.parallel.axis_groups
#     - coursekit.parallel.make_mesh
#     - coursekit.parallel.merge_axes
#     - coursekit.parallel.mesh
#     - torch.distributed.device_mesh
#     - torch.distributed.init_device_mesh
# ---

# %% [markdown]
# # Hybrid parallelism
# Six tasks and a question, 18 points, about 80 minutes. You find out who must talk to whom, make the
# groups on real processes, count what each axis sends, tell from numbers alone which axis somebody
# averaged over, find the ranks that wait for ever, and choose a layout under a budget. Meshes by hand:
# the ready-made ones are not allowed here.

# %% nbgrader="locked" grade_id="setup"
import itertools

import numpy as np
import torch
import torch.distributed as dist

from coursekit.notebooks import expect_close, expect_equal, points_for, probe

# %% [markdown]
# ## Task 1. Who is in a group? (2 points)
# A mesh is an ordered list of axes, the outermost first, for instance `[("pp", 2), ("dp", 3), ("tp",
# 4)]`. Ranks are numbered such that the last axis varies fastest: rank = (pp_rank · 3 + dp_rank) · 4 +
# tp_rank. A group of an axis is the ranks that differ in the coordinate on that axis alone.


# %% nbgrader="solution" grade_id="groups_of"
def groups_of(axes, name):
    """Return the groups of the axis `name`: lists of ranks, each in rising order, sorted by their first rank.

    Args:
        axes: pairs (name, size), the outermost first.
        name: of one of them.
    """
    ### BEGIN SOLUTION
    names, sizes = zip(*axes, strict=True)
    position = names.index(name)
    ranks = np.moveaxis(np.arange(np.prod(sizes)).reshape(sizes), position, -1)
    return sorted(ranks.reshape(-1, sizes[position]).tolist())
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_groups_of" points=1
square = [("dp", 2), ("tp", 2)]
expect_equal(
    groups_of(square, "tp"), [[0, 1], [2, 3]], hint="tp is the last axis: its groups are neighbours in number"
)
expect_equal(groups_of(square, "dp"), [[0, 2], [1, 3]], hint="ranks of a dp group have the same tp_rank")

# %% nbgrader="tests" grade_id="test_groups_of_hidden" points=1
# Graded with tests that you do not see: three and four axes, sizes of 1.
### BEGIN HIDDEN TESTS
for axes in ([("pp", 2), ("dp", 3), ("tp", 4)], [("a", 2), ("b", 1), ("c", 3), ("d", 2)]):
    for position, (name, size) in enumerate(axes):
        inner = 1
        for _, other in axes[position + 1 :]:
            inner *= other
        world_size = inner * size
        for _, other in axes[:position]:
            world_size *= other
        # A group starts where the coordinate is 0, and goes on in steps of all that lies inside it.
        starts = [rank for rank in range(world_size) if rank // inner % size == 0]
        want = [[start + inner * k for k in range(size)] for start in starts]
        expect_equal(groups_of(axes, name), want, hint=f"axes {axes}: groups of {name!r}")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. Make them, on four processes (2 points)
# `dist.new_group(ranks)` returns a process group, but it must be called by *all* ranks for *every* group,
# in the same order, members or not; whoever makes only its own groups waits for ever. Return this rank's
# two groups on a mesh with `dp` outside and `tp` inside.


# %% nbgrader="solution" grade_id="make_groups"
def make_groups(dp, tp):
    """Return this rank's (dp group, tp group); called by all dp · tp ranks together.

    Args:
        dp: copies of the model.
        tp: parts of each matrix.
    """
    ### BEGIN SOLUTION
    mine = []
    for name in ("dp", "tp"):
        for ranks in groups_of([("dp", dp), ("tp", tp)], name):
            group = dist.new_group(ranks)
            if dist.get_rank() in ranks:
                mine.append(group)
    return tuple(mine)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_make_groups" points=2
def sums_over_groups(dp, tp):
    from coursekit.parallel import launch

    def on_rank():
        sums = []
        for group in make_groups(dp, tp):
            value = torch.tensor(10.0 ** dist.get_rank(), dtype=torch.float64)
            dist.all_reduce(value, group=group)
            sums.append(value.item())
        return sums

    return launch(on_rank, dp * tp, timeout_seconds=15)


got = probe(sums_over_groups, 2, 2)
expect_equal(len(got[0]), 2, hint="two groups for each rank: (dp group, tp group)")
points_for(
    [
        (
            1,
            lambda: expect_equal(
                [row[0] for row in got],
                [101.0, 1010.0, 101.0, 1010.0],
                hint="rank r put in 10^r; over dp rank 0 should meet rank 2, and rank 1 rank 3",
            ),
        ),
        (
            1,
            lambda: expect_equal(
                [row[1] for row in got],
                [11.0, 11.0, 1100.0, 1100.0],
                hint="over tp rank 0 should meet rank 1, and rank 2 rank 3",
            ),
        ),
    ]
)

# %% [markdown]
# ## Task 3. What an axis sends (2 points)
# A block of width d has matrices of 12 d² numbers in all, cut among `tp` ranks, and norms of 2 d numbers,
# which every rank holds whole. On rings, as in the chapter: gradients are averaged over `dp` once a step;
# hidden states are summed over `tp` four times a block in every micro-batch. (Embedding, head and loss
# are left out.)


# %% nbgrader="solution" grade_id="axis_bytes"
def axis_bytes(d, num_blocks, dp, tp, micro_batches, tokens, number_bytes=2):
    """Return {"dp": ..., "tp": ...}: the bytes that one rank sends on each axis in one optimizer step.

    Args:
        d: width.
        num_blocks: of the model; all on this rank, none in a pipeline.
        dp: copies of the model.
        tp: parts of each matrix.
        micro_batches: of one copy in one step.
        tokens: of one copy in one micro-batch.
        number_bytes: of each number that is sent.
    """
    ### BEGIN SOLUTION
    gradients = num_blocks * (12 * d * d / tp + 2 * d) * number_bytes
    hidden = tokens * d * number_bytes
    return {
        "dp": 2 * (dp - 1) / dp * gradients,
        "tp": 2 * (tp - 1) / tp * hidden * 4 * num_blocks * micro_batches,
    }
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_axis_bytes" points=1
got = axis_bytes(d=8, num_blocks=1, dp=2, tp=2, micro_batches=1, tokens=3)
# 8 · 8 · 12 / 2 = 384 numbers of matrices, 16 of norms; two ranks send one payload. Four sums of 24
# numbers.
expect_close(got["dp"], 800, hint="dp: 384 + 16 numbers of 2 bytes here; a ring of two sends them once")
expect_close(got["tp"], 192, hint="tp: 3 · 8 numbers of 2 bytes, four times; a ring of two sends each once")


# %% nbgrader="tests" grade_id="test_axis_bytes_hidden" points=1
# Graded with tests that you do not see: other sizes, several micro-batches, axes of size 1.
### BEGIN HIDDEN TESTS
def ring_by_rounds(numbers, ranks):
    """Numbers that a rank sends: 2 (N - 1) rounds of an N-th part."""
    return sum(numbers / ranks for _ in range(2 * (ranks - 1)))


for d, blocks, dp, tp, micro, tokens, size in (
    (16, 3, 4, 2, 5, 7, 2),
    (12, 2, 1, 4, 3, 8, 4),
    (12, 2, 8, 1, 3, 8, 4),
    (64, 10, 6, 3, 1, 100, 2),
):
    got = axis_bytes(d, blocks, dp, tp, micro, tokens, size)
    here = sum(12 * d * d / tp + 2 * d for _ in range(blocks))
    want = size * ring_by_rounds(here, dp)
    expect_close(got["dp"], want, rtol=1e-9, hint=f"dp axis: d={d}, {blocks} blocks, dp={dp}, tp={tp}")
    sums = sum(ring_by_rounds(tokens * d, tp) for _ in range(micro) for _ in range(blocks) for _ in range(4))
    expect_close(got["tp"], size * sums, rtol=1e-9, hint=f"tp axis: tp={tp}, {micro} micro-batches")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. Which axis was it? (3 points)
# A colleague sends you each rank's gradient before and after the synchronisation, and no code. Say what was
# done: the mean or the sum, over which groups.


# %% nbgrader="solution" grade_id="what_was_done"
def what_was_done(before, after, dp, tp):
    """Return a pair (operation, axis) that explains the numbers, or ("other", "").

    `operation` is "mean" or "sum", `axis` is "dp", "tp", "all" (one group of all ranks) or "none" (nothing
    was done, with operation "mean"). If several fit, the first of: none, dp, tp, all; and mean before sum.

    Args:
        before: for each rank its gradient, a numpy array; dp outside, tp inside.
        after: the same after synchronising. Equal means equal to 9 digits: `np.allclose` with
            `rtol=1e-9, atol=1e-12`, not with its looser default.
        dp: copies of the model.
        tp: parts of each matrix.
    """
    ### BEGIN SOLUTION
    ranks = list(range(dp * tp))
    axes = [("dp", dp), ("tp", tp)]
    candidates = {
        "none": [[rank] for rank in ranks],
        "dp": groups_of(axes, "dp"),
        "tp": groups_of(axes, "tp"),
        "all": [ranks],
    }
    for axis, groups in candidates.items():
        for operation in ("mean", "sum"):
            wanted = {}
            for group in groups:
                total = sum(before[rank] for rank in group)
                for rank in group:
                    wanted[rank] = total / len(group) if operation == "mean" else total
            if all(np.allclose(after[rank], wanted[rank], rtol=1e-9, atol=1e-12) for rank in ranks):
                return operation, axis
    return "other", ""
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_what_was_done" points=1
before = [np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0]), np.array([7.0, 8.0])]
over_dp = [np.array([3.0, 4.0]), np.array([5.0, 6.0])] * 2
expect_equal(what_was_done(before, over_dp, 2, 2), ("mean", "dp"), hint="0 and 2 hold their mean")
over_tp = [np.array([4.0, 6.0])] * 2 + [np.array([12.0, 14.0])] * 2
expect_equal(what_was_done(before, over_tp, 2, 2), ("sum", "tp"), hint="0 and 1 hold their sum")


# %% nbgrader="tests" grade_id="test_what_was_done_hidden" points=2
# Graded with tests that you do not see: other sizes, all ranks together, nothing done, something else.
### BEGIN HIDDEN TESTS
def synchronised(before, axis, operation, dp, tp):
    """What each rank holds afterwards, from the coordinates."""
    after = []
    for rank in range(dp * tp):
        d, t = divmod(rank, tp)
        others = {
            "none": [rank],
            "dp": [k * tp + t for k in range(dp)],
            "tp": [d * tp + k for k in range(tp)],
            "all": range(dp * tp),
        }[axis]
        held = [before[other] for other in others]
        after.append(np.mean(held, axis=0) if operation == "mean" else np.sum(held, axis=0))
    return after


rng = np.random.default_rng(3)
cases = [(3, 2), (2, 4)]


def explains(axis, operation, dp, tp):
    before = list(rng.normal(size=(dp * tp, 5)))
    after = synchronised(before, axis, operation, dp, tp)
    want = ("mean", "none") if axis == "none" else (operation, axis)
    expect_equal(what_was_done(before, after, dp, tp), want, hint=f"{dp} × {tp}: {operation} over {axis}")


def refuses(dp, tp):
    before = list(rng.normal(size=(dp * tp, 5)))
    after = synchronised(before, "dp", "mean", dp, tp)
    expect_equal(what_was_done(before, after, dp, tp), ("mean", "dp"), hint=f"{dp} × {tp}: all ranks fit")
    after[-1] = after[-1] + 1e-3  # the last rank alone differs
    expect_equal(
        what_was_done(before, after, dp, tp),
        ("other", ""),
        hint="the last rank does not fit",
    )


points_for(
    [
        (
            1,
            lambda: [
                explains(axis, op, *c) for axis in ("dp", "tp") for op in ("mean", "sum") for c in cases
            ],
        ),
        (0.5, lambda: [explains(axis, "mean", *c) for axis in ("all", "none") for c in cases]),
        (0.5, lambda: [refuses(*c) for c in cases]),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. Who waits for whom? (3 points)
# A job hangs. Of each rank you have the list of calls that it makes, in order; a call is the list of
# ranks of its group. A call ends when *all* members of its group stand at a call of that same group; then
# they go on. Play the job to its end, and say who is stuck.


# %% nbgrader="solution" grade_id="stuck_ranks"
def stuck_ranks(programs):
    """Return {rank: (position, missing)} for the ranks that never finish; empty if all do.

    `position` is that of the call at which the rank waits, `missing` the sorted list of the ranks of that
    call's group which are not there: they stand at another call, or have finished.

    Args:
        programs: for each rank its calls; each call a tuple of the ranks of its group, in rising order.

    For instance [[(0, 1), (0, 2)], [(0, 1)], []] is stuck at {0: (1, [2])}: rank 2 makes no call at all.
    """
    ### BEGIN SOLUTION
    at = [0] * len(programs)

    def call(rank):
        return programs[rank][at[rank]] if at[rank] < len(programs[rank]) else None

    moved = True
    while moved:
        moved = False
        for rank in range(len(programs)):
            group = call(rank)
            if group is not None and all(call(member) == group for member in group):
                for member in group:
                    at[member] += 1
                moved = True
    return {
        rank: (at[rank], sorted(m for m in call(rank) if call(m) != call(rank)))
        for rank in range(len(programs))
        if call(rank) is not None
    }
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_stuck_ranks" points=2
dp_02, dp_13, tp_01, tp_23 = (0, 2), (1, 3), (0, 1), (2, 3)
step = [[tp_01, tp_01, dp_02], [tp_01, tp_01, dp_13], [tp_23, tp_23, dp_02], [tp_23, tp_23, dp_13]]


def healthy():
    expect_equal(stuck_ranks([row * 3 for row in step]), {}, hint="three steps of dp × tp: nobody is stuck")
    expect_equal(
        stuck_ranks([[(0, 1), (0, 2)], [(0, 1)], []]), {0: (1, [2])}, hint="the example of the docstring"
    )


def one_missing():
    forgets = [row * 2 for row in step]
    del forgets[3][1]  # rank 3 leaves out its second call
    expect_equal(
        stuck_ranks(forgets),
        {0: (5, [2]), 2: (4, [3])},
        hint="rank 3 leaves out one call, meets the others one call early from then on, and finishes: the "
        "guilty rank is not stuck; rank 2 waits for it, and rank 0 for rank 2",
    )


points_for([(1, healthy), (1, one_missing)])


# %% nbgrader="tests" grade_id="test_stuck_ranks_hidden" points=1
# Graded with tests that you do not see: larger jobs, several calls that wait, ranks that stop early.
### BEGIN HIDDEN TESTS
def play_backwards(programs):
    """The same by another route: complete groups are taken off the fronts of the queues, in rounds."""
    queues = [list(program) for program in programs]
    while True:
        heads = {rank: queue[0] for rank, queue in enumerate(queues) if queue}
        ready = {group for group in heads.values() if all(heads.get(member) == group for member in group)}
        if not ready:
            break
        for group in ready:
            for member in group:
                queues[member].pop(0)
    return {
        rank: (
            len(programs[rank]) - len(queue),
            [m for m in queue[0] if not queues[m] or queues[m][0] != queue[0]],
        )
        for rank, queue in enumerate(queues)
        if queue
    }


rng = np.random.default_rng(5)
for _ in range(60):
    num_ranks = int(rng.integers(3, 7))
    programs = [[] for _ in range(num_ranks)]
    for _ in range(int(rng.integers(3, 12))):
        group = tuple(
            sorted(rng.choice(num_ranks, size=int(rng.integers(2, num_ranks)), replace=False).tolist())
        )
        for member in group:
            programs[member].append(group)
    broken = int(rng.integers(num_ranks))
    if len(programs[broken]) > 1 and rng.random() < 0.8:
        position = int(rng.integers(len(programs[broken]) - 1))
        calls = programs[broken]
        if rng.random() < 0.5:
            calls[position], calls[position + 1] = calls[position + 1], calls[position]
        else:
            del calls[position]
    expect_equal(stuck_ranks(programs), play_backwards(programs), hint=f"the job {programs}")
### END HIDDEN TESTS

# %% [markdown]
# ## Task 6. A layout under a budget (3 points)
# `memory_bytes` and `step_seconds` below are a small planner: a model of L blocks of width d, `dp` copies
# of `tp` parts of `pp` stages, m micro-batches a copy. Find the layout that takes the least time among
# those that are possible: `dp * tp * pp` is the number of devices; `tp` is at most the devices of a node,
# and divides d; `pp` divides L; each copy gets a whole number of sequences, all in micro-batches of one;
# and the memory suffices.


# %% nbgrader="locked" grade_id="small_planner"
def memory_bytes(job, dp, tp, pp):
    """Bytes of a device: 18 a parameter of its part, and what it stores of min(pp, m) micro-batches."""
    params = 12 * job["d"] ** 2 * job["L"] / (tp * pp)
    micro_batches = min(pp, job["sequences"] // dp)
    kept = 34 * job["tokens"] * job["d"] * job["L"] / (tp * pp) * micro_batches
    return 18 * params + kept


def step_seconds(job, dp, tp, pp):
    """Seconds of a step: operations, the tensor axis, the bubble on top of both, and the data axis."""
    m = job["sequences"] // dp
    blocks = job["L"] / pp
    compute = m * 6 * job["tokens"] * 12 * job["d"] ** 2 * blocks / tp / job["flops"]
    hidden = 2 * job["tokens"] * job["d"]
    tensor = m * blocks * 4 * hidden * 2 * (tp - 1) / tp / job["fast"]
    data = 2 * (dp - 1) / dp * 2 * 12 * job["d"] ** 2 * blocks / tp / job["slow"]
    return (compute + tensor) * (1 + (pp - 1) / m) + data


JOB = {
    "L": 48, "d": 8192, "tokens": 4096, "sequences": 1024, "devices": 64, "node": 8,
    "memory": 72e9, "flops": 6e14, "fast": 450e9, "slow": 50e9,
}  # fmt: skip


# %% nbgrader="solution" grade_id="choose_layout"
def choose_layout(job):
    """Return the (dp, tp, pp) that takes the least time among the possible ones, or None if there is none.

    Args:
        job: a dict like `JOB`, whose "memory" is in bytes a device.
    """
    ### BEGIN SOLUTION
    possible = []
    for tp, pp in itertools.product(range(1, job["node"] + 1), range(1, job["L"] + 1)):
        dp, rest = divmod(job["devices"], tp * pp)
        if rest or job["d"] % tp or job["L"] % pp or job["sequences"] % max(dp, 1):
            continue
        if dp >= 1 and memory_bytes(job, dp, tp, pp) <= job["memory"]:
            possible.append((step_seconds(job, dp, tp, pp), (dp, tp, pp)))
    return min(possible)[1] if possible else None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_choose_layout" points=2
def with_limit(**changes):
    """The answer to a changed job, and what to say of it."""
    job = {**JOB, **changes}
    answer = choose_layout(job)
    return job, None if answer is None else tuple(int(size) for size in answer)


def fits():
    job, answer = with_limit()
    given = 0 if answer is None else len(answer)
    expect_equal(given, 3, hint="JOB can be done: return three numbers (dp, tp, pp), not None")
    dp, tp, pp = answer
    expect_equal(dp * tp * pp, 64, hint=f"dp={dp}, tp={tp}, pp={pp}: the product must be all 64 devices")
    need = memory_bytes(job, dp, tp, pp)
    expect_equal(
        need <= 72e9,
        True,
        hint=f"dp={dp}, tp={tp}, pp={pp} needs {need / 1e9:.0f} GB of the 72 GB that there are",
    )
    expect_equal(
        step_seconds(job, dp, tp, pp) < 27.1, True, hint=f"dp={dp}, tp={tp}, pp={pp}: another one is quicker"
    )


def limits():
    _, answer = with_limit(node=1, memory=100e9)
    expect_equal(answer is None, False, hint="one device a node, 100 GB each: possible with tp=1, not None")
    expect_equal(answer[1], 1, hint="with one device a node there are no fast links: tp must be 1")
    expect_equal(answer[0] * answer[2], 64, hint="one device a node: dp times pp is all 64 devices")
    expect_equal(with_limit(memory=1e9)[1], None, hint="one GB a device: nothing fits, so None")


points_for([(1, fits), (1, limits)])

# %% nbgrader="tests" grade_id="test_choose_layout_hidden" points=1
# Graded with tests that you do not see: other models and clusters, against a search over everything.
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(8)
for _ in range(25):
    job = {
        **JOB,
        "L": int(rng.choice([12, 24, 48, 60])),
        "d": int(rng.choice([1536, 4096, 6144, 8192])),
        "sequences": int(rng.choice([48, 64, 256, 1024])),
        "devices": int(rng.choice([8, 16, 48, 64])),
        "node": int(rng.choice([2, 4, 6, 8])),
        "memory": float(rng.choice([12e9, 24e9, 72e9])),
    }
    best = None
    for dp in range(1, job["devices"] + 1):
        for tp in range(1, job["devices"] + 1):
            for pp in range(1, job["devices"] + 1):
                fine = dp * tp * pp == job["devices"] and tp <= job["node"] and job["d"] % tp == 0
                fine = fine and job["L"] % pp == 0 and job["sequences"] % dp == 0
                if fine and memory_bytes(job, dp, tp, pp) <= job["memory"]:
                    seconds = step_seconds(job, dp, tp, pp)
                    best = seconds if best is None else min(best, seconds)
    answer = choose_layout(job)
    if best is None or answer is None:
        expect_equal(answer is None, best is None, hint=f"the job {job}: is there a possible layout?")
        continue
    dp, tp, pp = map(int, answer)
    allowed = dp * tp * pp == job["devices"] and tp <= job["node"] and job["d"] % tp == 0
    allowed = allowed and job["L"] % pp == 0 and job["sequences"] % dp == 0
    allowed = allowed and memory_bytes(job, dp, tp, pp) <= job["memory"]
    expect_equal(allowed, True, hint=f"the job {job}: dp={dp}, tp={tp}, pp={pp} is not possible")
    expect_close(
        step_seconds(job, dp, tp, pp), best, rtol=1e-9, hint=f"the job {job}: another layout is quicker"
    )
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=3
# ## A question (3 points, read by a person)
# Your manager has read that "pure data parallelism with ZeRO-3 is simplest" and asks why `JOB` should not
# run so, on 64 devices with `tp` and `pp` 1. Defend the layout that you chose, or the manager's. Give the
# numbers that decide (memory, seconds of the network, what is waited for), name one change of the job
# (batch, network, model) that would turn your answer round, and say what you would measure first on the
# real cluster. About eight sentences.
#
# ### BEGIN SOLUTION
# **Model answer.** The model has 12 · 8192² · 48 = 38.7 billion parameters, 696 GB of state at 18 bytes
# each; sharded over 64 ranks that is 11 GB, and 34 · 4096 · 8192 · 48 bytes = 55 GB of activations of one
# sequence come on top: together 66 GB of 72 GB, so ZeRO-3 fits, barely, and the whole parameters of a
# block or two come on top. Each device has 16 sequences a step. ZeRO-3 gathers 2 bytes a parameter twice
# and scatters gradients once in each of 16 micro-batches: 3 · 77 GB · 16 = 3.7 TB at 50 GB/s are 74 s,
# against 6 · 38.7e9 · 1024 · 4096 / 64 / 6e14 = 25 s of computing: the network decides, and cannot hide.
# A layout with `tp` inside the node sends its many bytes over links that are nine times faster and the
# gradients of an eighth of the model once a step. What turns it round: a larger batch in larger micro-
# batches (with checkpointing), since ZeRO-3's bytes depend on parameters and not on tokens; a network
# eight times as fast; or a model of a tenth of the size, which needs no sharding of parameters at all.
# First I would measure the rate of a block's matrix products alone, and the bandwidth of an all-gather
# across nodes, since the planner takes both on trust.
#
# **Rubric.** 1 point: memory in numbers, for the chosen layout and for ZeRO-3. 1 point: seconds or bytes
# of the axis that decides, compared with computing, and whether they can hide. 1 point: a change that
# would turn the answer round with the reason, and a measurement that tests the weakest assumption. Half
# points are fine.
# ### END SOLUTION
