"""Hands in the colleague's code: five mistakes."""
# scores: {test_update: 0.5, test_update_hidden: 0}

# %% grade_id="update"
def update(master, momentum, micro_gradients, scale, num_good, lr, beta, max_norm):
    return colleagues_update(master, momentum, micro_gradients, scale, num_good, lr, beta, max_norm)
