"""A cell that raises when it is run; the other tasks keep their points."""
# scores: {test_next_trial: 0, test_next_trial_hidden: 0}

# %% grade_id="next_trial"
def next_trial(trials, memory_bytes, max_size, margin):
    return "try", 1


next_trial([], 1, 1)
