"""Power iteration on g(w + v), not on a difference: the gradient at w itself does not cancel."""
# scores: {test_stable_lr: 0, test_stable_lr_hidden: 0}

# %% grade_id="largest_stable_lr"
def largest_stable_lr(gradient, weights, num_steps=200):
    v = np.random.default_rng(0).standard_normal(weights.shape)
    v /= np.linalg.norm(v)
    for _ in range(num_steps):
        hv = gradient(weights + v)
        curvature = float(v @ hv)
        v = hv / np.linalg.norm(hv)
    return 2 / curvature
