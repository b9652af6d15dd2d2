"""Sums exponentials as they are, and takes the mean of means for the mean over all logits."""
# scores: {test_smoothed_loss_hidden: 0}

# %% grade_id="smoothed_loss"
def summarize(z, labels, first_id):
    local = labels - first_id
    is_here = (local >= 0) & (local < z.shape[1])
    of_label = z.gather(1, local.where(is_here, 0)[:, None])[:, 0].where(is_here, 0)
    return torch.stack([z.exp().sum(1), of_label, z.mean(1)], dim=1)


def combine(summaries, vocab_size, epsilon):
    exponentials, of_label, means = torch.stack(summaries).unbind(-1)
    return exponentials.sum(0).log() - (1 - epsilon) * of_label.sum(0) - epsilon * means.mean(0)
