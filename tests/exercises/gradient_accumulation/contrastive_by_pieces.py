"""Adds up the losses of the pieces: each row is compared with its own piece only."""
# scores: {test_contrastive: 0.5, test_contrastive_hidden: 0}

# %% grade_id="accumulate_contrastive"
def accumulate_contrastive(encode, pieces):
    num_rows, total = sum(len(a) for a, _ in pieces), 0.0
    for a, b in pieces:
        loss = contrastive_loss(encode(a), encode(b)) * len(a) / num_rows
        loss.backward()
        total += loss.item()
    return total
