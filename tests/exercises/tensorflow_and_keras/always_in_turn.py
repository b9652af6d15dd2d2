"""Adds all times up, prefetch or not."""
# scores: {test_epoch_seconds: 0, test_epoch_seconds_hidden: 0}

# %% grade_id="epoch_seconds"
def epoch_seconds(load_seconds, step_seconds, buffer):
    return sum(load_seconds) + sum(step_seconds)
