"""The loader never waits, as if any buffer could hold the whole epoch."""
# scores: {test_epoch_seconds: 1, test_epoch_seconds_hidden: 0}

# %% grade_id="epoch_seconds"
def epoch_seconds(load_seconds, step_seconds, buffer):
    loaded = ended = 0.0
    for load, step in zip(load_seconds, step_seconds):
        loaded = (ended if buffer == 0 else loaded) + load
        ended = max(loaded, ended) + step
    return ended
