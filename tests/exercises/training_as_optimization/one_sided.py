"""One gradient subtracted, on one side only: right on a bowl, off where the curvature changes."""
# scores: {test_stable_lr: 1}

# %% grade_id="largest_stable_lr"
def largest_stable_lr(gradient, weights, num_steps=200):
    v = np.random.default_rng(0).standard_normal(weights.shape)
    at_weights = gradient(weights)
    for _ in range(num_steps):
        v /= np.linalg.norm(v)
        hv = (gradient(weights + 1e-4 * v) - at_weights) / 1e-4
        curvature = float(v @ hv)
        v = hv
    return 2 / curvature
