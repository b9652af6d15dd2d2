"""Stretches by the norm whatever it is: a parameter that is zero stays there, and decay is stretched too."""
# scores: {test_lion_lamb: 1, test_lion_lamb_hidden: 0}

# %% grade_id="lion_lamb"
def lion_lamb(theta, g, m, lr, b1, b2, decay):
    u = (b1 * m + (1 - b1) * g).sign() + decay * theta
    ratio = theta.norm() / u.norm().clamp(min=1e-12)
    return theta - lr * ratio * u, b2 * m + (1 - b2) * g
