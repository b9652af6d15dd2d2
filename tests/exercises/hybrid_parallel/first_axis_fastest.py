"""Numbers the ranks the other way round: the first axis varies fastest."""
# scores: {test_groups_of: 0, test_groups_of_hidden: 0, test_make_groups: 0, test_what_was_done: 0, test_what_was_done_hidden: 0.5}

# %% grade_id="groups_of"
def groups_of(axes, name):
    names, sizes = zip(*axes)
    position = names.index(name)
    ranks = np.moveaxis(np.arange(np.prod(sizes)).reshape(sizes[::-1]).T, position, -1)
    return sorted(sorted(group) for group in ranks.reshape(-1, sizes[position]).tolist())
