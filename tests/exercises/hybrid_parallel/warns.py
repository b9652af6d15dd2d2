"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="groups_of"
import warnings


def groups_of(axes, name):
    warnings.warn("groups by hand", stacklevel=2)
    names = [axis for axis, _ in axes]
    inner = int(np.prod([size for _, size in axes[names.index(name) + 1 :]]))
    size, total = dict(axes)[name], int(np.prod([size for _, size in axes]))
    starts = [rank for rank in range(total) if rank // inner % size == 0]
    return [[start + inner * k for k in range(size)] for start in starts]
