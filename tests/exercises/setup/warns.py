"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="memory_bandwidth"
import warnings


def memory_bandwidth(copies, cache_bytes):
    warnings.warn("two points make a line", stacklevel=2)
    past = sorted((2 * n, seconds) for n, seconds in copies if 2 * n >= 4 * cache_bytes)
    (first, start), (last, end) = past[0], past[-1]
    return (last - first) / (end - start)
