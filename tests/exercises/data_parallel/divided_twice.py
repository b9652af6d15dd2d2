"""Divides by all tokens and then, as DDP would, by the number of ranks as well."""
# scores: {test_token_gradients: 0, test_token_gradients_hidden: 0}

# %% grade_id="token_gradients"
def token_gradients(model, loss_sum, num_valid):
    total = torch.tensor(float(num_valid), dtype=torch.float64)
    dist.all_reduce(total)
    if num_valid > 0:
        (loss_sum / total).backward()
    for p in model.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()
