"""The famous bug: experts averaged over all ranks as if each rank held the same one."""
# scores: {test_combine: 0, test_combine_hidden: 1}

# %% grade_id="combine"
def combine(routers, experts, dp, ep):
    world = dp * ep
    return sum(routers) / world, [sum(experts) / world] * ep
