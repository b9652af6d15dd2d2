"""Traces once for each type of argument, as if any shape and any number would fit."""
# scores: {test_traces: 0, test_traces_hidden: 0}

# %% grade_id="traces"
def traces(calls):
    keys = [[a[:2] if a[0] == "tensor" else a[:1] for a in call] for call in calls]
    return [int(key not in keys[:i]) for i, key in enumerate(keys)]
