"""m times the slowest stage and once each of the others, whatever the order is."""
# scores: {test_end_of: 0, test_end_of_hidden: 0}

# %% grade_id="end_of"
def end_of(order, times):
    m = len(order[0]) // 2
    costs = [forward + backward for forward, backward in times]
    return m * max(costs) + sum(costs) - max(costs)
