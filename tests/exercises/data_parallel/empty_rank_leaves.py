"""A rank without tokens returns at once, and the others wait for it."""
# scores: {test_token_gradients_hidden: 1}

# %% grade_id="token_gradients"
def token_gradients(model, loss_sum, num_valid):
    total = torch.tensor(float(num_valid), dtype=torch.float64)
    dist.all_reduce(total)
    if num_valid == 0:
        return
    (loss_sum / total).backward()
    for p in model.parameters():
        dist.all_reduce(p.grad)
