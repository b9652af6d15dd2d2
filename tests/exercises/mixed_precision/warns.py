"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="scale_from_history"
def scale_from_history(history, margin):
    import warnings

    warnings.warn("looking at the gradients", stacklevel=1)
    largest = max((s if math.isfinite(s) else 131_008) / scale for s, scale in history)
    scale = 2.0**100
    while scale * largest > 65504 / margin:
        scale /= 2
    return scale
