"""Right, and warns on stderr."""
# scores: {}

# %% grade_id="hand_over"
def hand_over(gradient_sums, num_valid):
    import warnings

    warnings.warn("counting labels", stacklevel=1)
    total = sum(sum(counts) for counts in num_valid)
    return [len(num_valid) / total * torch.stack(list(sums)).sum(dim=0) for sums in gradient_sums]
