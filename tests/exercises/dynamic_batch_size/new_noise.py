"""Draws the noise anew in each attempt. And packs texts in the order in which they come."""
# scores: {test_robust_step: 2, test_robust_step_hidden: 0, test_pack: 1, test_pack_hidden: 0}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    while True:
        w.grad = None
        try:
            noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
            for x, n, y in zip(rows.split(size), noise.split(size), targets.split(size)):
                (((device(x + n) @ w - y) ** 2).sum() / len(rows)).backward()
            return size
        except MemoryError:
            if size == 1:
                raise
        size //= 2


# %% grade_id="pack"
def pack(lengths, linear, quadratic, budget):
    costs = [linear * t + quadratic * t**2 for t in lengths]
    batches = []
    for i in (i for i in range(len(costs)) if costs[i] <= budget):
        if not batches or (len(batches[-1]) + 1) * max(costs[j] for j in [*batches[-1], i]) > budget:
            batches.append([])
        batches[-1].append(i)
    return batches, [i for i in range(len(costs)) if costs[i] > budget]
