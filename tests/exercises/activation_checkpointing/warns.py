"""Right, and warns on stderr."""
# scores: {}

# %% grade_id="step_ratio"
def step_ratio(layers, segments):
    import warnings

    warnings.warn("counting products only", stacklevel=1)
    once = 3 * sum(op for layer in layers for op in layer if op != "keeps")
    again = 0
    for start, stop in segments:
        flat = sum(layers[start:stop], [])
        again += sum(op for op in flat[: len(flat) - 1] if op != "keeps")
    return 1 + again / once
