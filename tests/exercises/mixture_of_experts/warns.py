"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="combine"
import warnings


def combine(routers, experts, dp, ep):
    warnings.warn("gradients by hand", stacklevel=2)
    world = dp * ep
    return sum(routers) / world, [sum(experts[j::ep]) / world for j in range(ep)]
