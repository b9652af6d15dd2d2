"""Right in another way: clips without the 1e-6, and packs buckets from the last gradient backward."""
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


# %% grade_id="plan_buckets"
def plan_buckets(sizes, first_cap, cap):
    late = {len(sizes): []}  # late[k]: the fewest later buckets for the gradients from k on, each as late as it can be
    for start in range(len(sizes) - 1, -1, -1):
        ends = [e for e in range(start + 1, len(sizes) + 1) if e == start + 1 or sum(sizes[start:e]) <= cap]
        end = min(ends, key=lambda e: (len(late[e]), e))
        late[start] = [list(range(start, end)), *late[end]]
    ends = [e for e in range(1, len(sizes) + 1) if e == 1 or sum(sizes[:e]) <= first_cap]
    if not ends:
        return []
    end = min(ends, key=lambda e: (len(late[e]), e))
    return [list(range(end)), *late[end]]
