"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="plan_buckets"
import warnings


def plan_buckets(sizes, first_cap, cap):
    warnings.warn("buckets are packed greedily", stacklevel=2)
    buckets, filled = [], 0
    for position, size in enumerate(sizes):
        if not buckets or filled + size > (first_cap if len(buckets) == 1 else cap):
            buckets.append([])
            filled = 0
        buckets[-1].append(position)
        filled += size
    return buckets
