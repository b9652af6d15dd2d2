"""Mends four of the five mistakes, and still compares the scaled norm with the limit."""
# scores: {test_update: 3.25, test_update_hidden: 0}

# %% grade_id="update"
def update(master, momentum, micro_gradients, scale, num_good, lr, beta, max_norm):
    total = sum(gradient.float() for gradient in micro_gradients)
    if not total.isfinite().all():
        return master, momentum, scale / 2, 0
    total = total * min(1.0, max_norm / total.norm().item()) / scale
    momentum = beta * momentum + total
    num_good += 1
    if num_good == 100:
        scale, num_good = scale * 2, 0
    return master - lr * momentum, momentum, scale, num_good
