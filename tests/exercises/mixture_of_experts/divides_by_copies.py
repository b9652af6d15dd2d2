"""Averages an expert over its copies alone, and forgets that a row's losses were summed."""
# scores: {test_combine: 0, test_combine_hidden: 1}

# %% grade_id="combine"
def combine(routers, experts, dp, ep):
    return sum(routers) / (dp * ep), [sum(experts[j::ep]) / dp for j in range(ep)]
