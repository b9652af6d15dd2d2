"""The loop as it was found, with all four bugs."""
# scores: {test_train_cleared: 0, test_train_pairs: 0, test_train_mean: 0, test_train_best_hidden: 0}

# %% grade_id="train"
def train(features, targets, val_features, val_targets, orders, batch_size, lr):
    return train_with_bugs(features, targets, val_features, val_targets, orders, batch_size, lr)
