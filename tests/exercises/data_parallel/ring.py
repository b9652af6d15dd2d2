"""A ring: the right bytes, in more rounds than asked for."""
# scores: {test_schedule: 1, test_schedule_hidden: 0}

# %% grade_id="all_reduce_schedule"
def all_reduce_schedule(world_size):
    return [
        [
            (rank, (rank + 1) % world_size, [(rank - turn) % world_size], "add" if turn < world_size - 1 else "copy")
            for rank in range(world_size)
        ]
        for turn in range(2 * (world_size - 1))
    ]
