"""Right, and warns on stderr."""
# scores: {}

# %% grade_id="pack"
def pack(lengths, linear, quadratic, budget):
    import warnings

    warnings.warn("sorting by length", stacklevel=1)
    costs = {i: linear * t + quadratic * t**2 for i, t in enumerate(lengths)}
    order = sorted((i for i in costs if costs[i] <= budget), key=costs.get, reverse=True)
    batches = []
    for i in order:
        if not batches or (len(batches[-1]) + 1) * costs[batches[-1][0]] > budget:
            batches.append([])
        batches[-1].append(i)
    return batches, [i for i in costs if costs[i] > budget]
