"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_first_mismatch: 0, test_first_mismatch_hidden: 0}

# %% grade_id="first_mismatch"
def first_mismatch(calls):
    return None


raise RuntimeError("a line that was tried out and left there")
