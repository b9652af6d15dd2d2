"""Tries a step again after any error, and passes the last one on: too late, and not if it was gone by then."""
# scores: {test_robust_step: 3.5}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    while True:
        w.grad = None
        try:
            for x, n, y in zip(rows.split(size), noise.split(size), targets.split(size)):
                (((device(x + n) @ w - y) ** 2).sum() / len(rows)).backward()
            return size
        except Exception:
            size //= 2
            if size == 0:
                raise
