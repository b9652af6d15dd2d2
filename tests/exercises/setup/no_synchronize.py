"""Reads the clock when the calls have returned, not when the work is done."""
# scores: {test_seconds_per_call: 0, test_seconds_per_call_hidden: 0}

# %% grade_id="seconds_per_call"
def seconds_per_call(operation, synchronize, clock):
    operation()
    times = []
    for _ in range(5):
        start = clock()
        for _ in range(100):
            operation()
        times.append(clock() - start)
    return min(times) / 100
