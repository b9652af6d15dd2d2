"""One call between two readings of the clock: lost between its steps."""
# scores: {test_seconds_per_call: 2, test_seconds_per_call_hidden: 0}

# %% grade_id="seconds_per_call"
def seconds_per_call(operation, synchronize, clock):
    times = []
    for _ in range(11):
        synchronize()
        start = clock()
        operation()
        synchronize()
        times.append(clock() - start)
    return min(times[1:])
