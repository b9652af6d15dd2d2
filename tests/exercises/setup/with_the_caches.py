"""The best rate of all copies, which is that of a cache."""
# scores: {test_memory_bandwidth: 0, test_memory_bandwidth_hidden: 0}

# %% grade_id="memory_bandwidth"
def memory_bandwidth(copies, cache_bytes):
    return max(2 * n / seconds for n, seconds in copies)
