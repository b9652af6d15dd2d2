"""Mends the decay, and goes on counting micro-steps for the rate and for the correction."""
# scores: {test_train: 1.5, test_train_hidden: 0}

# %% grade_id="train"
def train(matrix, gain, micro_gradients, grad_accum_steps, lrs, decay):
    theta, m, v, total = [matrix, gain], [0, 0], [0, 0], [0, 0]
    for i, gradients in enumerate(micro_gradients):
        total = [total[j] + gradients[j] for j in range(2)]
        lr = lrs[min(i, len(lrs) - 1)]
        if (i + 1) % grad_accum_steps == 0:
            for j in range(2):
                m[j] = 0.9 * m[j] + 0.1 * total[j]
                v[j] = 0.999 * v[j] + 0.001 * total[j] ** 2
                step = m[j] / (1 - 0.9 ** (i + 1)) / ((v[j] / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
                theta[j] = theta[j] - lr * step - (lr * decay * theta[j] if j == 0 else 0)
            total = [0, 0]
    return theta[0], theta[1]
