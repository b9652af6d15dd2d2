"""Thinks that 2 and 2.0, 1 and True have keys of their own."""
# scores: {test_traces: 1, test_traces_hidden: 0}

# %% grade_id="traces"
def traces(calls):
    keys = [repr(call) for call in calls]
    return [int(key not in keys[:i]) for i, key in enumerate(keys)]
