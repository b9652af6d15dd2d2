"""Explains what rank 0 holds and believes the others."""
# scores: {test_what_was_done_hidden: 1.5}

# %% grade_id="what_was_done"
def what_was_done(before, after, dp, tp):
    axes = [("dp", dp), ("tp", tp)]
    groups = {"none": [0], "dp": groups_of(axes, "dp")[0], "tp": groups_of(axes, "tp")[0], "all": range(dp * tp)}
    for axis, group in groups.items():
        total = sum(before[rank] for rank in group)
        for operation, wanted in (("mean", total / len(group)), ("sum", total)):
            if np.allclose(after[0], wanted, rtol=1e-9, atol=1e-12):
                return operation, axis
    return "other", ""
