"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_place: 0, test_place_hidden: 0}

# %% grade_id="place"
def place(loads, devices):
    return []


raise RuntimeError("a line that was tried out and left there")
