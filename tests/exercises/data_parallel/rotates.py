"""Starts elsewhere in every epoch instead of shuffling: the batches of one epoch come again in the next."""
# scores: {test_epoch_shard_hidden: 0}

# %% grade_id="epoch_shard"
def epoch_shard(num_samples, epoch, rank, world_size):
    order = [(sample + 7 * (epoch + 1)) % num_samples for sample in range(num_samples)]
    return order[rank::world_size]
