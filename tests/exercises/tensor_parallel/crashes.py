"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_who_waits: 0, test_who_waits_hidden: 0}

# %% grade_id="who_waits"
def who_waits(programs):
    return {}


raise RuntimeError("a line that was tried out and left there")
