"""The slope of the squared error without its factor 2, and a NumPy bool as the verdict."""
# scores: {test_train_cleared: 0, test_train_pairs: 0, test_train_mean: 0, test_train_best_hidden: 0}

# %% grade_id="gradient_check"
def numeric_gradient(loss, weights, epsilon):
    slopes = np.empty_like(weights)
    for index in np.ndindex(weights.shape):
        up, down = weights.copy(), weights.copy()
        up[index] += epsilon
        down[index] -= epsilon
        slopes[index] = (loss(up) - loss(down)) / (2 * epsilon)
    return slopes


def gradient_is_right(claimed, numeric):
    if claimed.shape != numeric.shape:
        return False
    size = np.maximum(np.linalg.norm(claimed), np.linalg.norm(numeric))
    return np.linalg.norm(claimed - numeric) <= 1e-6 * size


# %% grade_id="train"
def train(features, targets, val_features, val_targets, orders, batch_size, lr):
    weights = np.zeros(features.shape[1])
    best_loss, best_weights, history = np.inf, weights, []
    for order in orders:
        for start in range(0, len(order), batch_size):
            ids = order[start : start + batch_size]
            x, t = features[ids], targets[ids]
            weights = weights - lr * x.T @ (x @ weights - t) / len(ids)
        loss = ((val_features @ weights - val_targets) ** 2).mean()
        history.append(float(loss))
        if loss < best_loss:
            best_loss, best_weights = loss, weights
    return best_weights, history
