"""None for every job, as when the possible layouts are filtered and the best one is never handed back."""
# scores: {test_choose_layout: 0, test_choose_layout_hidden: 0}

# %% grade_id="choose_layout"
def choose_layout(job):
    possible = []
    for tp, pp in itertools.product(range(1, job["node"] + 1), range(1, job["L"] + 1)):
        dp, rest = divmod(job["devices"], tp * pp)
        if not rest and not job["d"] % tp and not job["L"] % pp and dp:
            possible.append((step_seconds(job, dp, tp, pp), (dp, tp, pp)))
    min(possible)
