"""Knows the mean alone, and takes the sum for something else."""
# scores: {test_what_was_done: 0, test_what_was_done_hidden: 1}

# %% grade_id="what_was_done"
def what_was_done(before, after, dp, tp):
    ranks = list(range(dp * tp))
    axes = [("dp", dp), ("tp", tp)]
    candidates = {"none": [[r] for r in ranks], "dp": groups_of(axes, "dp"), "tp": groups_of(axes, "tp"), "all": [ranks]}
    for axis, groups in candidates.items():
        wanted = {r: sum(before[m] for m in group) / len(group) for group in groups for r in group}
        if all(np.allclose(after[r], wanted[r], rtol=1e-9, atol=1e-12) for r in ranks):
            return "mean", axis
    return "other", ""
