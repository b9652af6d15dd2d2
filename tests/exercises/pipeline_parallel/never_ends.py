"""Says of every order that it never ends."""
# scores: {test_end_of: 0, test_end_of_hidden: 0}

# %% grade_id="end_of"
def end_of(order, times):
    return None
