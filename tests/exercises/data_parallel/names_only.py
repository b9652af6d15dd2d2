"""Compares the names of the calls and not their sizes, and looks no further than the shortest record."""
# scores: {test_first_mismatch: 0, test_first_mismatch_hidden: 0}

# %% grade_id="first_mismatch"
def first_mismatch(calls):
    for position in range(min(map(len, calls))):
        names = [record[position][0] for record in calls]
        if len(set(names)) > 1:
            return position, sorted([r for r, n in enumerate(names) if n == name] for name in set(names))
    return None
