"""Right, in another hand: a generator of ranges, keys of numpy's, torch's whole numbers, a defaultdict."""
# scores: {}


# %% grade_id="groups_of"
def groups_of(axes, name):
    sizes = [size for _, size in axes]
    position = [axis for axis, _ in axes].index(name)
    inner = int(np.prod(sizes[position + 1 :]))
    block = inner * sizes[position]
    starts = (r for r in range(int(np.prod(sizes))) if r // inner % sizes[position] == 0)
    return [range(start, start + block, inner) for start in starts]


# %% grade_id="stuck_ranks"
from collections import defaultdict


def stuck_ranks(programs):
    at = np.zeros(len(programs), dtype=int)
    moved = True
    while moved:
        moved = False
        standing = [p[i] if i < len(p) else () for p, i in zip(programs, at, strict=True)]
        for group in set(standing) - {()}:
            if all(standing[member] == group for member in group):
                at[list(group)] += 1
                moved = True
    stuck = defaultdict(tuple)
    for rank in np.flatnonzero([i < len(p) for p, i in zip(programs, at, strict=True)]):
        stuck[rank] = at[rank], [m for m in standing[rank] if standing[m] != standing[rank]]
    return stuck


# %% grade_id="choose_layout"
def choose_layout(job):
    n = torch.arange(1, job["devices"] + 1)
    grids = torch.cartesian_prod(n, n, n)
    dp, tp, pp = grids[grids.prod(1) == job["devices"]].unbind(1)
    fine = (tp <= job["node"]) & (job["d"] % tp == 0) & (job["L"] % pp == 0) & (job["sequences"] % dp == 0)
    grids = torch.stack([dp, tp, pp], 1)[fine]
    fitting = [g for g in grids if memory_bytes(job, *g.tolist()) <= job["memory"]]
    return min(fitting, key=lambda g: step_seconds(job, *g.tolist()), default=None)
