"""numpy.allclose with its default atol of 1e-8: a zero gradient passes where the true one is small."""
# scores: {test_gradient_is_right: 0, test_gradient_is_right_hidden: 0}

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
    return bool(np.allclose(claimed, numeric))
