"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_choose_layout: 0, test_choose_layout_hidden: 0}

# %% grade_id="choose_layout"
def choose_layout(job):
    return None


raise RuntimeError("a line that was tried out and left there")
