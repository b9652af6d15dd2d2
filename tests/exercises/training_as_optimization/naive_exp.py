"""exp of raw logits: overflows at 1000, so that the loss is NaN there and right everywhere else."""
# scores: {test_loss: 1, test_loss_hidden: 0}

# %% grade_id="smoothed_cross_entropy"
def smoothed_cross_entropy(logits, labels, smoothing):
    n, num_classes = logits.shape
    targets = np.full(logits.shape, smoothing / num_classes)
    targets[np.arange(n), labels] += 1 - smoothing
    with np.errstate(all="ignore"):
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return float(-(targets * np.log(p)).sum() / n), (p - targets) / n
