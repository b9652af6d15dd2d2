"""Repeats samples until the shares are equal, as DistributedSampler does."""
# scores: {test_epoch_shard_hidden: 0}

# %% grade_id="epoch_shard"
def epoch_shard(num_samples, epoch, rank, world_size):
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(epoch)).tolist()
    while len(order) % world_size:
        order += order[: world_size - len(order) % world_size]
    return order[rank::world_size]
