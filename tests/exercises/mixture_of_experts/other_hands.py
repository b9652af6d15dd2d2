"""Right, in another hand: torch's whole numbers, a generator of numpy arrays, an array of devices."""
# scores: {}


# %% grade_id="sizes"
def sizes(d, layers, attention, dense_layers, dense_ff, experts, expert_ff, top_k, shared, vocab):
    total = torch.tensor(2 * vocab * d + layers * attention)
    total += 3 * d * dense_ff * dense_layers
    total += (layers - dense_layers) * (d * experts + 3 * d * expert_ff * (experts + shared))
    unmet = (layers - dense_layers) * 3 * d * expert_ff * (experts - top_k) + vocab * d
    return total, total - unmet


# %% grade_id="combine"
from typing import NamedTuple


class Gradients(NamedTuple):
    router: np.ndarray
    experts: list


def combine(routers, experts, dp, ep):
    grid = np.array(experts).reshape(dp, ep, *np.shape(experts[0]))
    return Gradients(np.mean(routers, axis=0), [column.sum(0) / (dp * ep) for column in grid.swapaxes(0, 1)])


# %% grade_id="place"
def place(loads, devices):
    table = np.asarray(loads)
    each = np.repeat(np.arange(devices), table.shape[1] // devices)
    best = None
    for candidate in set(itertools.permutations(each.tolist())):
        busy = np.stack([table[:, np.array(candidate) == d].sum(1) for d in range(devices)])
        cost = busy.max(0).sum()
        if best is None or cost < best[0]:
            best = (cost, np.array(candidate))
    return best[1]
