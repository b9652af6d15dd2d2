"""The same order in every epoch: a DistributedSampler whose set_epoch nobody called."""
# scores: {test_epoch_shard: 0, test_epoch_shard_hidden: 0}

# %% grade_id="epoch_shard"
def epoch_shard(num_samples, epoch, rank, world_size):
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))
    return order[rank::world_size].tolist()
