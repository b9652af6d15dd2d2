"""Adds up the losses and calls backward once: the values are right, and the device is out of memory."""
# scores: {test_accumulate: 0, test_accumulate_hidden: 0}

# %% grade_id="accumulate"
def accumulate(model, micro_batches):
    num_valid = sum(int((labels != IGNORE_INDEX).sum()) for _, labels in micro_batches)
    loss = 0.0
    for input_ids, labels in micro_batches:
        logits = model(input_ids).flatten(0, 1)
        loss = loss + F.cross_entropy(logits, labels.flatten(), reduction="sum") / num_valid
    loss.backward()
    return loss.item()
