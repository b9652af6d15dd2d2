"""The balance loss without its factor E."""
# scores: {test_balance_loss: 0, test_balance_loss_hidden: 0}

# %% grade_id="balance_loss"
def balance_loss(logits, total_load):
    return (total_load / total_load.sum() * logits.softmax(-1).mean(0)).sum()
