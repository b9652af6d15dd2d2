"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="best_grid"
import warnings


def best_grid(d_in, d_out, n):
    warnings.warn("every grid is tried", stacklevel=2)
    grids = [(r, n // r, ((n // r - 1) * d_in + (r - 1) * d_out) / n) for r in range(1, n + 1) if n % r == 0]
    return min(grids, key=lambda grid: grid[2])
