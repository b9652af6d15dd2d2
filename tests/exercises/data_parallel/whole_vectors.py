"""Pairs exchange whole vectors at doubling distances: few rounds, log2(N) vectors sent."""
# scores: {test_schedule: 0, test_schedule_hidden: 0}

# %% grade_id="all_reduce_schedule"
def all_reduce_schedule(world_size):
    rounds, distance = [], 1
    while distance < world_size:
        rounds.append([(r, r ^ distance, list(range(world_size)), "add") for r in range(world_size)])
        distance *= 2
    return rounds
