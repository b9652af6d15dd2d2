"""The colleague's step as it was handed out, with a bound, so that it ends where nothing fits."""
# scores: {test_robust_step: 0, test_robust_step_hidden: 0}

# %% grade_id="robust_step"
def robust_step(w, rows, targets, device, size, generator):
    w.grad = None
    while size:
        try:
            noise = 0.1 * torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
            pieces = list(zip(rows.split(size), noise.split(size), targets.split(size)))
            for x, n, y in pieces:
                loss = ((device(x + n) @ w - y) ** 2).mean()
                (loss / len(pieces)).backward()
            return size
        except Exception:
            size = size // 2
