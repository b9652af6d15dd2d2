"""The gradients are averaged, but every rank starts from its own weight."""
# scores: {test_train_rank: 3, test_train_rank_hidden: 0}

# %% grade_id="train_rank"
def train_rank(weight, inputs, labels, steps, lr, max_norm, seed):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    model.load_state_dict({"weight": weight})
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed + step)
        rows = torch.randperm(len(inputs), generator=generator)[: len(inputs) // 2][rank::world_size]
        optimizer.zero_grad()
        cross_entropy(model(inputs[rows]), labels[rows]).backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= world_size
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    return model.weight.detach()
