"""Compares the calls position by position, as if all ranks were in all groups."""
# scores: {test_stuck_ranks: 1, test_stuck_ranks_hidden: 0}

# %% grade_id="stuck_ranks"
def stuck_ranks(programs):
    stuck = {}
    for rank, calls in enumerate(programs):
        for position, group in enumerate(calls):
            missing = [m for m in group if position >= len(programs[m]) or programs[m][position] != group]
            if missing:
                stuck[rank] = (position, sorted(missing))
                break
    return stuck
