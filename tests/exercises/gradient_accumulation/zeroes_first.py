"""Calls zero_grad inside: what the caller had accumulated is lost."""
# scores: {test_accumulate: 1.5}

# %% grade_id="accumulate"
def accumulate(model, micro_batches):
    model.zero_grad()
    num_valid = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in micro_batches)
    total = 0.0
    for input_ids, labels in micro_batches:
        loss = F.cross_entropy(model(input_ids).flatten(0, 1), labels.flatten(), reduction="sum") / num_valid
        loss.backward()
        total += loss.item()
    return total
