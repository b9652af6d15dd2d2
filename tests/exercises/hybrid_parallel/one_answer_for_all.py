"""Always something else was done, and one device is enough unless there is hardly any memory."""
# scores: {test_what_was_done: 0, test_what_was_done_hidden: 0, test_choose_layout: 0, test_choose_layout_hidden: 0}

# %% grade_id="what_was_done"
def what_was_done(before, after, dp, tp):
    return "other", ""


# %% grade_id="choose_layout"
def choose_layout(job):
    return None if job["memory"] < 2e9 else (1, 1, 1)
