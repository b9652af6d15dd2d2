"""Right, in another hand: the history is an array, verdicts are numpy's, helpers are classes and lambdas."""
# scores: {}

# %% grade_id="gradient_check"
from dataclasses import dataclass


@dataclass(frozen=True)
class Zentrale_Differenz:
    ε: float

    def __call__(self, loss, weights):
        steigung = np.zeros(weights.shape)
        for i in range(weights.size):
            e = np.zeros(weights.size)
            e[i] = self.ε
            e = e.reshape(weights.shape)
            steigung[np.unravel_index(i, weights.shape)] = (
                (loss(weights + e) - loss(weights - e)) / 2 / self.ε
            )
        return steigung


numeric_gradient = lambda loss, weights, epsilon: Zentrale_Differenz(epsilon)(loss, weights)  # noqa: E731


def gradient_is_right(claimed, numeric):
    if np.shape(claimed) != np.shape(numeric) or np.isnan(claimed).any() or np.isnan(numeric).any():
        return np.bool_(False)
    size = np.maximum(np.sqrt((claimed**2).sum()), np.sqrt((numeric**2).sum()))
    return np.sqrt(((claimed - numeric) ** 2).sum()) <= 1e-6 * size


# %% grade_id="train"
def train(features, targets, val_features, val_targets, orders, batch_size, lr):
    print("los geht's", features.shape)
    w = np.zeros((features.shape[1], 1))
    weights, history = [], np.empty(len(orders))
    for epoch, order in enumerate(orders):
        for ids in np.split(order, range(batch_size, len(order), batch_size)):
            x, t = features[ids], targets[ids][:, None]
            w -= lr * 2 * np.mean(x * (x @ w - t), axis=0)[:, None]
        weights.append(w[:, 0].copy())
        history[epoch] = np.mean((val_features @ w[:, 0] - val_targets) ** 2)
    return weights[int(history.argmin())], history
