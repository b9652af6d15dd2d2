"""Takes every error for a lack of memory, in the step and on ranks."""
# scores: {test_robust_step: 3.5, test_agreed_step_hidden: 0}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
    while size:
        w.grad = None
        try:
            for x, n, y in zip(rows.split(size), noise.split(size), targets.split(size)):
                (((device(x + n) @ w - y) ** 2).sum() / len(rows)).backward()
            return size
        except Exception:
            size //= 2
    raise MemoryError("not even one row fits")


# %% grade_id="agreed_step"
def agreed_step(attempt, size):
    while size:
        failed = torch.zeros(1)
        try:
            attempt(size)
        except Exception:
            failed += 1
        dist.all_reduce(failed)
        if failed == 0:
            return size
        size //= 2
    raise MemoryError("one sequence does not fit on some rank")
