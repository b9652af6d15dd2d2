"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="lion_lamb"
def lion_lamb(theta, g, m, lr, b1, b2, decay):
    import warnings

    warnings.warn("a rule of my own", stacklevel=1)
    sign = torch.sign(b1 * m + (1 - b1) * g)
    ratio = 1.0
    if sign.any() and theta.any():
        ratio = (theta.square().sum() / sign.square().sum()).sqrt()
    return (1 - lr * decay) * theta - lr * ratio * sign, m + (1 - b2) * (g - m)
