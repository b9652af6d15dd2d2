"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="bubbles"
import warnings


def bubbles(p, m):
    warnings.warn("for equal stages", stacklevel=2)
    return (p - 1) / (m + p - 1), (p - 1) / m


def fewest_micro_batches(p, most_idle):
    return next(m for m in itertools.count(1) if p - 1 <= most_idle * (m + p - 1))
