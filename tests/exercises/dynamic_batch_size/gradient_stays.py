"""Zeroes once, before the first attempt: what it added counts twice. And ranks decide alone, each for itself."""
# scores: {test_robust_step: 3, test_robust_step_hidden: 0, test_agreed_step: 0.5, test_agreed_step_hidden: 0}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    w.grad = None
    while True:
        try:
            for x, n, y in zip(rows.split(size), noise.split(size), targets.split(size)):
                (((device(x + n) @ w - y) ** 2).sum() / len(rows)).backward()
            return size
        except MemoryError:
            if size == 1:
                raise
        size //= 2


# %% grade_id="agreed_step"
def agreed_step(attempt, size):
    while True:
        try:
            attempt(size)
            return size
        except MemoryError:
            if size == 1:
                raise
        size //= 2
