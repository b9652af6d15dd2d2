"""Computes again from wherever the generator is: backward sees other masks than the loss did."""
# scores: {test_recompute: 1, test_recompute_hidden: 0}

# %% grade_id="recompute"
def recompute(function, generator, *tensors):
    return _Again.apply(function, generator, *tensors)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, generator, *tensors):
        ctx.function, ctx.generator = function, generator
        ctx.save_for_backward(*tensors)
        return function(generator, *tensors)

    @staticmethod
    def backward(ctx, grad_output):
        needed = ctx.needs_input_grad[2:]
        tensors = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed)]
        with torch.enable_grad():
            output = ctx.function(ctx.generator, *tensors)
        gradients = iter(torch.autograd.grad(output, [t for t in tensors if t.requires_grad], grad_output))
        return None, None, *(next(gradients) if n else None for n in needed)
