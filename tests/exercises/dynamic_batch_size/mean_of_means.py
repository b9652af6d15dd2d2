"""Each piece's mean over the number of pieces. And a budget of tokens, as if memory went with the length."""
# scores: {test_robust_step: 3, test_robust_step_hidden: 0, test_pack: 1.5, test_pack_hidden: 0}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    while True:
        w.grad = None
        try:
            pieces = list(zip(rows.split(size), noise.split(size), targets.split(size)))
            for x, n, y in pieces:
                (((device(x + n) @ w - y) ** 2).mean() / len(pieces)).backward()
            return size
        except MemoryError:
            if size == 1:
                raise
        size //= 2


# %% grade_id="pack"
def pack(lengths, linear, quadratic, budget):
    order = sorted((i for i in range(len(lengths)) if linear * lengths[i] <= budget), key=lambda i: -lengths[i])
    batches = []
    for i in order:
        if not batches or (len(batches[-1]) + 1) * linear * lengths[batches[-1][0]] > budget:
            batches.append([])
        batches[-1].append(i)
    return batches, [i for i in range(len(lengths)) if linear * lengths[i] > budget]
