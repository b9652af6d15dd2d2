"""Mean of means: each rank divides by its own tokens, and every rank weighs the same."""
# scores: {test_token_gradients: 0, test_token_gradients_hidden: 0}

# %% grade_id="token_gradients"
def token_gradients(model, loss_sum, num_valid):
    if num_valid > 0:
        (loss_sum / num_valid).backward()
    for p in model.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()
