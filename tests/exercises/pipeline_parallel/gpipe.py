"""All forward passes first, which stores everything; and the means of micro-batches added up, never divided."""
# scores: {test_pipeline_step: 0, test_pipeline_step_hidden: 0, test_order_1f1b: 0, test_order_1f1b_hidden: 2}

# %% grade_id="order_1f1b"
def order_1f1b(p, m):
    return [[f"F{k}" for k in range(m)] + [f"B{k}" for k in range(m)] for _ in range(p)]


# %% grade_id="pipeline_step"
def pipeline_step(stage, micro_batches, hidden_size):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    kept, total = [], 0.0
    for x, targets in micro_batches:
        if rank > 0:
            x = torch.empty(len(x), hidden_size, dtype=torch.float64)
            dist.recv(x, rank - 1)
            x.requires_grad_()
        y = stage(x)
        if rank < last:
            dist.send(y.detach(), rank + 1)
        else:
            y = cross_entropy(y, targets)
            total += y.item()
        kept.append((x, y))
    for x, y in kept:
        gradient = None
        if rank < last:
            gradient = torch.empty_like(y)
            dist.recv(gradient, rank + 1)
        y.backward(gradient)
        if rank > 0:
            dist.send(x.grad, rank - 1)
    return total if rank == last else None
