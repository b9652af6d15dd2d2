"""Trains nothing: matrix and gain come back as they were."""
# scores: {test_train: 0, test_train_hidden: 0}

# %% grade_id="train"
def train(matrix, gain, micro_gradients, grad_accum_steps, lrs, decay):
    return matrix, gain
