"""Hands in the colleague's loop: four mistakes."""
# scores: {test_train: 0, test_train_hidden: 0}

# %% grade_id="train"
def train(matrix, gain, micro_gradients, grad_accum_steps, lrs, decay):
    return colleagues_train(matrix, gain, micro_gradients, grad_accum_steps, lrs, decay)
