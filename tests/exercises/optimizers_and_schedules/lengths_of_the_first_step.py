"""Judges by the first step alone, where several rules agree."""
# scores: {test_detect: 1.5, test_detect_hidden: 1}

# %% grade_id="detect"
def detect(thetas, gradients):
    u, g = thetas[0] - thetas[1], gradients[0]
    if (u / g).std() < 1e-3 * (u / g).mean():
        return "sgd", (u / g).mean().item()
    later = (thetas[1] - thetas[2]).abs()
    if later.max() < 1.001 * later.min():
        return "lion", u.abs().mean().item()
    return "adam", u.abs().mean().item()
