"""Takes the scale of the last step for all, and leaves overflowed steps out."""
# scores: {test_scale_from_history: 0.5, test_scale_from_history_hidden: 0}

# %% grade_id="scale_from_history"
def scale_from_history(history, margin):
    largest = max(s for s, _ in history if math.isfinite(s)) / history[-1][1]
    return 2.0 ** math.floor(math.log2(65504 / (margin * largest)))
