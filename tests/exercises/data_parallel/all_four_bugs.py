"""The loop of task 3 as it was handed out: no part of the points for a bug that is still there."""
# scores: {test_train_rank: 0, test_train_rank_hidden: 0}

# %% grade_id="train_rank"
def train_rank(weight, inputs, labels, steps, lr, max_norm, seed):
    return train_rank_broken(weight, inputs, labels, steps, lr, max_norm, seed)
