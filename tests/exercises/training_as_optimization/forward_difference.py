"""Forward differences, in place and not put back: an error of first order, and drifting weights."""
# scores: {test_numeric_gradient: 0}

# %% grade_id="gradient_check"
def numeric_gradient(loss, weights, epsilon):
    slopes = np.empty_like(weights)
    for index in np.ndindex(weights.shape):
        before = loss(weights)
        weights[index] += epsilon
        slopes[index] = (loss(weights) - before) / epsilon
    return slopes


def gradient_is_right(claimed, numeric):
    if claimed.shape != numeric.shape:
        return False
    size = max(np.linalg.norm(claimed), np.linalg.norm(numeric))
    return bool(np.linalg.norm(claimed - numeric) <= 1e-6 * size)
