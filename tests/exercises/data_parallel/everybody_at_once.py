"""Each chunk goes straight to its owner and back, two rounds of the right bytes, and rounds of nothing after them."""
# scores: {test_schedule: 0, test_schedule_hidden: 0}

# %% grade_id="all_reduce_schedule"
def all_reduce_schedule(world_size):
    pairs = [(a, b) for a in range(world_size) for b in range(world_size) if a != b]
    to_owners = [(rank, owner, [owner], "add") for rank, owner in pairs]
    back = [(owner, rank, [owner], "copy") for owner, rank in pairs]
    return [to_owners, back, *[[]] * (2 * (world_size.bit_length() - 1) - 2)]
