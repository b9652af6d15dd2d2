"""Each micro-batch's own mean, averaged over micro-batches: right only where they are equal."""
# scores: {test_pipeline_step_hidden: 0}

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
            y = cross_entropy(y, targets) / len(micro_batches)
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
