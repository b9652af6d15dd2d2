"""Right, but writes a warning on stderr."""
# scores: {}

# %% grade_id="epoch_shard"
import warnings


def epoch_shard(num_samples, epoch, rank, world_size):
    warnings.warn("the order is drawn anew in every epoch", stacklevel=2)
    generator = torch.Generator().manual_seed(epoch)
    return torch.randperm(num_samples, generator=generator)[rank::world_size].tolist()
