"""Every rank shuffles for itself, so some samples are seen twice and others never."""
# scores: {test_epoch_shard: 0, test_epoch_shard_hidden: 0}

# %% grade_id="epoch_shard"
def epoch_shard(num_samples, epoch, rank, world_size):
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(epoch * world_size + rank))
    return order[rank::world_size].tolist()
