"""A cell that raises: its function is not there; the other tasks keep their marks."""
# scores: {test_train: 0, test_train_hidden: 0}

# %% grade_id="train"
def train(w, micro_batches, grad_accum_steps, learning_rates, max_grad_norm):
    return w - learning_rates[0] * w


raise RuntimeError("left over from debugging")
