"""Begins with an empty bucket, which stays empty where the first gradient does not fit or there is none."""
# scores: {test_plan_buckets: 0, test_plan_buckets_hidden: 0}

# %% grade_id="plan_buckets"
def plan_buckets(sizes, first_cap, cap):
    buckets, filled = [[]], 0
    for position, size in enumerate(sizes):
        if filled + size > (first_cap if len(buckets) == 1 else cap):
            buckets.append([])
            filled = 0
        buckets[-1].append(position)
        filled += size
    return buckets
