"""Halving without doubling: each rank ends with one finished chunk, a reduce-scatter."""
# scores: {test_schedule: 0, test_schedule_hidden: 0}

# %% grade_id="all_reduce_schedule"
def all_reduce_schedule(world_size):
    rounds, distance = [], world_size // 2
    while distance:
        rounds.append(
            [
                (r, r ^ distance, [(r ^ distance) // distance * distance + k for k in range(distance)], "add")
                for r in range(world_size)
            ]
        )
        distance //= 2
    return rounds
