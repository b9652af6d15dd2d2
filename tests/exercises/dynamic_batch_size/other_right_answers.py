"""Right in other ways: the random state put back instead of one draw, gathered states, bisection between bounds."""
# scores: {}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    state = generator.get_state()
    while True:
        generator.set_state(state)
        noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
        total, short = torch.zeros_like(w), False
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            try:
                x = device(rows[part] + noise[part])
            except MemoryError:
                short = True
                break
            total += (2 * x.T @ (x @ w - targets[part]) / len(rows)).detach()
        if not short:
            w.grad = total
            return size
        if size == 1:
            raise MemoryError("one row does not fit")
        size //= 2


# %% grade_id="agreed_step"
def agreed_step(attempt, size):
    failure = None
    try:
        attempt(size)
    except Exception as error:
        failure = error
    kinds = [None] * dist.get_world_size()
    mine = "fits" if failure is None else "memory" if isinstance(failure, MemoryError) else "other"
    dist.all_gather_object(kinds, mine)
    if "other" in kinds:
        raise failure if mine == "other" else RuntimeError("another rank failed")
    if "memory" not in kinds:
        return size
    if size == 1:
        raise MemoryError("does not fit everywhere")
    del failure
    return agreed_step(attempt, size // 2)


# %% grade_id="next_trial"
def next_trial(trials, memory_bytes, max_size, margin):
    goal, low, high = (1 - margin) * memory_bytes, 0, max_size + 1
    for size, peak in trials:
        if peak is not None and peak <= goal:
            low = max(low, size)
        else:
            high = min(high, size)
    if high == low + 1:
        return ("use", low) if low else ("none", 0)
    if len(trials) < 2:
        return "try", low + 1
    if len(trials) < 5:
        points = sorted((s, p) for s, p in trials if p is not None)[-2:]
        if len(points) == 2:
            (a, pa), (b, pb) = points
            guess = int(a + (goal - pa) * (b - a) / (pb - pa) + 1e-9) if pb > pa else max_size
            return "try", max(low + 1, min(guess, high - 1))
    return "try", (low + high) // 2


# %% grade_id="pack"
def pack(lengths, linear, quadratic, budget):
    cost = lambda i: lengths[i] * (linear + quadratic * lengths[i])
    too_long, batches, batch = [i for i in range(len(lengths)) if cost(i) > budget], [], []
    for i in sorted((i for i in range(len(lengths)) if cost(i) <= budget), key=cost):
        if batch and (len(batch) + 1) * cost(i) > budget:
            batches.append(batch)
            batch = []
        batch.append(i)
    return batches + [batch] if batch else batches, too_long
