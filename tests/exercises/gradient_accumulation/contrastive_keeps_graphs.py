"""Encodes every piece with gradients and joins them: right values, and no room from the second piece on."""
# scores: {test_contrastive: 0.5, test_contrastive_hidden: 0}

# %% grade_id="accumulate_contrastive"
def accumulate_contrastive(encode, pieces):
    za = torch.cat([encode(a) for a, _ in pieces])
    zb = torch.cat([encode(b) for _, b in pieces])
    loss = contrastive_loss(za, zb)
    loss.backward()
    return loss.item()
