"""Stops at the end of the shortest record, so a rank that ends early goes unnoticed."""
# scores: {test_first_mismatch: 0, test_first_mismatch_hidden: 0}

# %% grade_id="first_mismatch"
def first_mismatch(calls):
    for position, made in enumerate(zip(*calls)):
        if len(set(made)) > 1:
            return position, sorted([r for r, m in enumerate(made) if m == call] for call in set(made))
    return None
