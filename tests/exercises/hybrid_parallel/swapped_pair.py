"""The right groups, handed back in the wrong order: gradients would be averaged over the tensor axis."""
# scores: {test_make_groups: 0}

# %% grade_id="make_groups"
def make_groups(dp, tp):
    mine = []
    for name in ("tp", "dp"):
        for ranks in groups_of([("dp", dp), ("tp", tp)], name):
            group = dist.new_group(ranks)
            if dist.get_rank() in ranks:
                mine.append(group)
    return tuple(mine)
