"""Right, by another formula, and it warns on stderr."""
# scores: {}

# %% grade_id="smoothed_cross_entropy"
def smoothed_cross_entropy(logits, labels, smoothing):
    import warnings

    warnings.warn("the first pass may overflow; the second one doesn't", RuntimeWarning)
    n, num_classes = logits.shape
    targets = (1 - smoothing) * np.eye(num_classes)[labels] + smoothing / num_classes
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return float(-(targets * log_p).sum() / n), (np.exp(log_p) - targets) / n
