"""Warm-up, waiting and enough calls, but the mean: what disturbs one measurement is shared out over all."""
# scores: {test_seconds_per_call: 2, test_seconds_per_call_hidden: 0}

# %% grade_id="seconds_per_call"
def seconds_per_call(operation, synchronize, clock):
    operation()
    synchronize()
    calls, start = 0, clock()
    while clock() - start < 8:
        operation()
        synchronize()
        calls += 1
    return (clock() - start) / calls
