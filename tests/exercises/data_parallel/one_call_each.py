"""No buckets: one call for every gradient."""
# scores: {test_plan_buckets: 0, test_plan_buckets_hidden: 0}

# %% grade_id="plan_buckets"
def plan_buckets(sizes, first_cap, cap):
    return [[position] for position in range(len(sizes))]
