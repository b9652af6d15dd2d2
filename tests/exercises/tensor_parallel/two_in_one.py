"""Packs two logits into one complex number: six of them hold a whole part."""
# scores: {test_smoothed_loss_hidden: 0}

# %% grade_id="smoothed_loss"
def summarize(z, labels, first_id):
    numbers = torch.cat([z, labels[:, None].double()], dim=1)
    packed = torch.full((len(z), 12), torch.nan, dtype=torch.float64)
    packed[:, : numbers.shape[1]] = numbers
    return torch.view_as_complex(packed.reshape(len(z), 6, 2))


def combine(summaries, vocab_size, epsilon):
    parts = [torch.view_as_real(s).reshape(len(s), 12) for s in summaries]
    parts = [part[:, ~part[0].isnan()] for part in parts]
    z = torch.cat([part[:, :-1] for part in parts], dim=1)
    return cross_entropy(z, parts[0][:, -1].long(), reduction="none", label_smoothing=epsilon)
