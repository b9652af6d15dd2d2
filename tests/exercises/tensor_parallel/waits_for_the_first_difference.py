"""Looks for the first place where two ranks of a group differ, as in a single group: order is not everything."""
# scores: {test_who_waits: 0, test_who_waits_hidden: 1}

# %% grade_id="who_waits"
def who_waits(programs):
    for place in range(max(map(len, programs))):
        at = {r: p[place] for r, p in enumerate(programs) if place < len(p)}
        stuck = {r: (g, [m for m in g if at.get(m) != g]) for r, g in at.items()}
        stuck = {r: (g, missing) for r, (g, missing) in stuck.items() if missing}
        if stuck:
            return stuck
    return {}
