"""Moves zero_grad, the clipping and the schedule; averages means and leaves the remainder."""
# scores: {test_train: 2.5, test_train_hidden: 0}

# %% grade_id="train"
def train(w, micro_batches, grad_accum_steps, learning_rates, max_grad_norm):
    w = nn.Parameter(w.clone())
    optimizer, step = torch.optim.SGD([w], lr=1.0), 0
    for i, (x, y) in enumerate(micro_batches):
        (((x @ w - y) ** 2).mean() / grad_accum_steps).backward()
        if (i + 1) % grad_accum_steps == 0:
            nn.utils.clip_grad_norm_([w], max_grad_norm)
            optimizer.param_groups[0]["lr"] = learning_rates[step]
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return w.detach()
