"""Relative error by division: NaN when both gradients are zero, and shapes that broadcast are let through."""
# scores: {test_gradient_is_right_hidden: 0}

# %% grade_id="gradient_check"
def numeric_gradient(loss, weights, epsilon):
    slopes = np.empty_like(weights)
    for index in np.ndindex(weights.shape):
        ends = []
        for sign in (1, -1):
            shifted = weights.copy()
            shifted[index] += sign * epsilon
            ends.append(loss(shifted))
        slopes[index] = (ends[0] - ends[1]) / (2 * epsilon)
    return slopes


def gradient_is_right(claimed, numeric):
    with np.errstate(all="ignore"):
        error = np.linalg.norm(claimed - numeric) / max(np.linalg.norm(claimed), np.linalg.norm(numeric))
    return bool(error < 1e-6)
