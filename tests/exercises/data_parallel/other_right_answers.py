"""Right in another way: clips without the 1e-6, or with it; shares out by sums in which only one term is not zero."""
# scores: {}

# %% grade_id="train_rank"
def train_rank(weight, inputs, labels, steps, lr, max_norm, seed):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    w = weight.clone()
    dist.broadcast(w, src=0)
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed + step)
        rows = torch.randperm(len(inputs), generator=generator)[: len(inputs) // 2].chunk(world_size)[rank]
        w.requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(inputs[rows] @ w.T, labels[rows]), w)
        dist.all_reduce(gradient)
        gradient /= world_size
        w = w.detach() - lr * gradient * min(1.0, max_norm / gradient.norm().item())
    return w


# %% grade_id="zero_step"
def zero_step(weight, momentum, gradient, lr, beta, max_norm):
    rank, world_size, k = dist.get_rank(), dist.get_world_size(), len(momentum)
    mean = gradient.clone()
    dist.all_reduce(mean)
    mean /= world_size
    mean *= min(1.0, max_norm / (mean.norm().item() + 1e-6))
    mine = torch.zeros(k, dtype=torch.float64)
    mine[: len(mean[rank * k : (rank + 1) * k])] = mean[rank * k : (rank + 1) * k]
    momentum = beta * momentum + mine
    change = torch.zeros(k * world_size, dtype=torch.float64)
    change[rank * k : (rank + 1) * k] = momentum
    dist.all_reduce(change)
    return weight - lr * change[: len(weight)], momentum
