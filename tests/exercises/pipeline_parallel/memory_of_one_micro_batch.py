"""Counts the activations of one micro-batch on each rank, as if they were not stored."""
# scores: {test_place_layers: 0, test_place_layers_hidden: 0}

# %% grade_id="place_layers"
def place_layers(costs, weights, kept, p, m, memory):
    best = None
    for cut in itertools.combinations(range(1, len(costs)), p - 1):
        parts = list(itertools.pairwise((0, *cut, len(costs))))
        if all(sum(weights[a:b]) + sum(kept[a:b]) <= memory for a, b in parts):
            slowest = max(sum(costs[a:b]) for a, b in parts)
            if best is None or slowest < best[0]:
                best = slowest, [b - a for a, b in parts]
    return best and best[1]
