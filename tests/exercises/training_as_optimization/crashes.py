"""A solution cell raises while it is being defined; what stands on it is lost, the rest is graded."""
# scores: {test_loss: 0, test_loss_hidden: 0, test_tied: 0, test_tied_hidden: 0}

# %% grade_id="smoothed_cross_entropy"
def smoothed_cross_entropy(logits, labels, smoothing):
    return log_softmax(logits), None


smoothed_cross_entropy(np.zeros((1, 2)), np.zeros(1, dtype=int), 0.0)
