"""Right, but it warns on stderr."""
# scores: {}

# %% grade_id="traces"
def traces(calls):
    import sys
    import warnings

    warnings.warn("comparing keys with ==", stacklevel=2)
    print("a note on stderr", file=sys.stderr)
    return [int(call not in calls[:i]) for i, call in enumerate(calls)]
