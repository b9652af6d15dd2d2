"""Forgets to ask whether the layout fits, and how many devices a node has."""
# scores: {test_choose_layout: 0, test_choose_layout_hidden: 0}

# %% grade_id="choose_layout"
def choose_layout(job):
    possible = []
    for tp, pp in itertools.product(range(1, job["devices"] + 1), range(1, job["L"] + 1)):
        dp, rest = divmod(job["devices"], tp * pp)
        if not rest and dp and not job["d"] % tp and not job["L"] % pp and not job["sequences"] % dp:
            possible.append((step_seconds(job, dp, tp, pp), (dp, tp, pp)))
    return min(possible)[1]
